"""The manager against a model of it, on a real database and real files, with crashes anywhere between."""

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database, sqlite_url
from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, NotFound, RequestIdReused
from services.common.fence import Fence, set_current_fence
from services.workspace import store as store_module
from services.workspace.drivers import Choice, DiskAdmission
from services.workspace.drivers.copying import CopyDriver
from services.workspace.manager import WorkspaceManager
from services.workspace.model import Filter, Labels, NewWorkspace, State, WorkspaceView
from services.workspace.store import WorkspaceStore
from services.workspace.trees import WorkspaceTrees
from services.workspace.usage import UsageMeter
from tests.kit.databases import add_database

IDS = st.sampled_from(["w1", "w2", "w3"])
JOBS = st.sampled_from(["job-a", "job-b"])


def new_engine(directory: Path) -> AsyncEngine:
    add_database(directory / "workspace.db", "workspace")
    return open_database(sqlite_url(directory / "workspace.db"))


def new_manager(directory: Path, engine: AsyncEngine) -> WorkspaceManager:
    trees = directory / "trees"
    trees.mkdir(exist_ok=True)
    copies = CopyDriver(trees, DiskAdmission(trees, 0), asyncio.Semaphore(2))
    return WorkspaceManager(
        WorkspaceStore(engine),
        Fences(engine, store_module.fences),
        WorkspaceTrees(trees),
        Choice({copies.name: copies}, {copies.name: None}, copies, copies),
        UsageMeter(trees, reserve_bytes=0),
    )


@asynccontextmanager
async def managing(directory: Path):
    engine = new_engine(directory)
    manager = new_manager(directory, engine)
    try:
        yield manager
    finally:
        await manager.aclose()
        await engine.dispose()


def directory_of(seen: WorkspaceView) -> Path:
    assert seen.layout.path
    return seen.layout.path.parent


class WorkspaceLife(RuleBasedStateMachine):
    """`self.model` is id → (job, state): what must be there, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="boatyard-test-"))
        self.base = self.directory / "base"
        self.base.mkdir()
        (self.base / "file").write_text("from the base")
        self.runner = asyncio.Runner()
        self.engine = new_engine(self.directory)
        self.manager = new_manager(self.directory, self.engine)
        self.model: dict[str, tuple[str, State]] = {}

    def teardown(self) -> None:
        self.runner.run(self.manager.aclose())
        self.runner.run(self.engine.dispose())
        self.runner.close()
        shutil.rmtree(self.directory)

    @rule(workspace_id=IDS, job_id=JOBS)
    def create(self, workspace_id: str, job_id: str) -> None:
        request = NewWorkspace(workspace_id, (self.base,), Labels(job_id=job_id))
        known = self.model.get(workspace_id)
        if known and known[0] != job_id:
            with pytest.raises(RequestIdReused):
                self.runner.run(self.manager.create(request))
            return
        made = self.runner.run(self.manager.create(request))
        assert made.workspace.state is (known[1] if known else State.ACTIVE)
        self.model[workspace_id] = (job_id, made.workspace.state)

    @rule(workspace_id=IDS, state=st.sampled_from([State.COMPLETED, State.ERROR]))
    def set_state(self, workspace_id: str, state: State) -> None:
        if workspace_id not in self.model:
            with pytest.raises(NotFound):
                self.runner.run(self.manager.set_state(workspace_id, state))
            return
        assert self.runner.run(self.manager.set_state(workspace_id, state)).workspace.state is state
        self.model[workspace_id] = (self.model[workspace_id][0], state)

    @rule(workspace_id=IDS)
    def delete(self, workspace_id: str) -> None:
        self.runner.run(self.manager.delete(workspace_id))
        self.model.pop(workspace_id, None)

    @rule()
    def sweep(self) -> None:
        gone = self.runner.run(self.manager.sweep(timedelta(0)))
        assert set(gone) == {name for name, (_, state) in self.model.items() if state is not State.ACTIVE}
        for workspace_id in gone:
            del self.model[workspace_id]

    @rule(workspace_id=IDS)
    def crash_while_removing(self, workspace_id: str) -> None:
        """Stop between the record of a removal and its end, then start again."""
        self.runner.run(WorkspaceStore(self.engine).set_state(workspace_id, State.CLEANING, datetime.now(UTC)))
        self.model.pop(workspace_id, None)
        self.restart()

    @rule(workspace_id=IDS)
    def crash_while_making(self, workspace_id: str) -> None:
        """Leave what a service killed in a copy, and one killed between the files and the record, leave."""
        (self.directory / "trees" / ".making" / f"{workspace_id}.killed" / "tree").mkdir(parents=True)
        if workspace_id not in self.model:
            (self.directory / "trees" / workspace_id / "tree").mkdir(parents=True)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.runner.run(self.manager.aclose())
        self.manager = new_manager(self.directory, self.engine)
        self.runner.run(self._recover())

    async def _recover(self) -> None:
        await self.manager.recover()
        await asyncio.gather(*self.manager._tasks)  # what recovery removes, it removes while serving

    @invariant()
    def files_and_records_are_those_of_the_model(self) -> None:
        page, token = self.runner.run(self.manager.page(Filter(), Page()))
        assert {
            found.workspace.workspace_id: (found.workspace.labels.job_id, found.workspace.state) for found in page
        } == self.model
        assert token == ""
        for found in page:
            assert (found.layout.path / "file").read_text() == "from the base"
        assert {path.name for path in (self.directory / "trees").iterdir()} == {".making", ".trash", *self.model}
        assert not list((self.directory / "trees").glob(".*/*"))


WorkspaceLife.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestWorkspaceLife = WorkspaceLife.TestCase


async def test_one_id_asked_for_many_times_at_once_is_one_workspace(tmp_path: Path) -> None:
    async with managing(tmp_path) as manager:
        made = await asyncio.gather(*(manager.create(NewWorkspace("w1")) for _ in range(8)))

    assert len({seen.workspace.create_time for seen in made}) == 1


async def test_pages_hold_each_workspace_once_and_know_their_filter(tmp_path: Path) -> None:
    async with managing(tmp_path) as manager:
        for number in range(5):
            await manager.create(NewWorkspace(f"w{number}", labels=Labels(job_id="job-a" if number % 2 else "job-b")))
        first, token = await manager.page(Filter(), Page.parse(3, ""))
        second, end = await manager.page(Filter(), Page.parse(3, token))
        odd, _ = await manager.page(Filter(job_id="job-a"), Page())

    assert [seen.workspace.workspace_id for seen in first + second] == ["w4", "w3", "w2", "w1", "w0"]
    assert end == ""
    assert {seen.workspace.workspace_id for seen in odd} == {"w1", "w3"}


async def test_a_lost_owner_changes_nothing(tmp_path: Path) -> None:
    async def as_owner(number: int, work) -> None:
        set_current_fence(Fence("job-a", number))
        await work

    async with managing(tmp_path) as manager:
        await asyncio.create_task(as_owner(2, manager.create(NewWorkspace("w1"))))
        for work in (
            manager.create(NewWorkspace("w2")),
            manager.set_state("w1", State.ERROR),
            manager.delete("w1"),
            manager.sweep(timedelta(0)),
        ):
            with pytest.raises(FailedPrecondition) as raised:
                await asyncio.create_task(as_owner(1, work))
            assert raised.value.reason == "STALE_FENCE"
        page, _ = await manager.page(Filter(), Page())

    assert [(seen.workspace.workspace_id, seen.workspace.state) for seen in page] == [("w1", State.ACTIVE)]


async def test_files_that_somebody_took_away_are_an_error_and_not_a_lie(tmp_path: Path) -> None:
    async with managing(tmp_path) as manager:
        made = await manager.create(NewWorkspace("w1"))
        shutil.rmtree(directory_of(made))
        await manager.recover()

        assert (await manager.get("w1")).workspace.state is State.ERROR


async def test_a_removal_goes_on_when_its_caller_leaves(tmp_path: Path) -> None:
    async with managing(tmp_path) as manager:
        await manager.create(NewWorkspace("w1"))
        caller = asyncio.create_task(manager.delete("w1"))
        while not manager._tasks:
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, *manager._tasks, return_exceptions=True)

        with pytest.raises(NotFound):
            await manager.get("w1")
