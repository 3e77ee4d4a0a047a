"""The HOME of a workspace's agents: made with it, counted and removed with it, or taken over by the job's next one."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.common.db.paging import Page
from services.workspace.model import Home, Labels, NewWorkspace, State, WorkspaceView
from tests.unit.workspace.test_manager import managing

JOB = Labels(project_id="p", job_id="job-a")


def asked(workspace_id: str, labels: Labels = JOB, **fields: object) -> NewWorkspace:
    return NewWorkspace(workspace_id, labels=labels, **{"home": Home.OF_JOB, **fields})


def left_in(seen: WorkspaceView, text: str = "kept") -> None:
    assert seen.home
    (seen.home / "file").write_text(text)


@dataclass(frozen=True)
class Case:
    """A workspace of the attempt before, how it ended, and what the next one of the job asks for."""

    name: str
    is_kept: bool = False
    labels: Labels = JOB
    home: Home | None = Home.OF_JOB
    state: State | None = State.ERROR
    text: str = "kept"
    more: dict[str, object] = field(default_factory=dict)


CASES = [
    Case("of the attempt before", is_kept=True),
    Case("of an attempt that has succeeded", is_kept=True, state=State.COMPLETED),
    Case("small enough", is_kept=True, more={"max_home_bytes": 100_000}),
    Case("too large", text="x" * 200_000, more={"max_home_bytes": 100_000}),
    Case("still worked in", state=None),
    Case("of another job", labels=Labels(project_id="p", job_id="job-b")),
    Case("of a job of that name in another project", labels=Labels(project_id="q", job_id="job-a")),
    Case("of no job", labels=Labels(project_id="p")),
    Case("not asked for", home=Home.NEW),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_only_the_next_workspace_of_a_job_takes_over_what_is_free_and_small(tmp_path: Path, case: Case) -> None:
    async with managing(tmp_path) as manager:
        first = await manager.create(asked("w1", home=Home.NEW))
        left_in(first, case.text)
        if case.state is not None:
            await manager.set_state("w1", case.state)
        second = await manager.create(asked("w2", case.labels, home=case.home, **case.more))
        again = await manager.create(asked("w2", case.labels, home=case.home, **case.more))
        before = await manager.get("w1")
    assert second.home == again.home
    assert second.home
    assert (second.home / "file").exists() == case.is_kept
    assert second.workspace.home_workspace_id == ("w1" if case.is_kept else "")
    assert (before.home is None) == case.is_kept, "it is moved, and is not there twice"


async def test_it_goes_through_all_attempts_and_with_the_last_workspace(tmp_path: Path) -> None:
    async with managing(tmp_path) as manager:
        left_in(await manager.create(asked("w1")))
        for number in range(2, 5):
            await manager.set_state(f"w{number - 1}", State.ERROR)
            seen = await manager.create(asked(f"w{number}"))
            assert seen.home
            assert (seen.home / "file").read_text() == "kept"
        await manager.delete("w4")
        assert not seen.home.parent.exists()
        after = await manager.create(asked("w5"))
    assert after.home
    assert not list(after.home.iterdir()), "it went with its workspace"


async def test_it_is_its_agents_alone_and_counts(tmp_path: Path) -> None:
    async with managing(tmp_path) as manager:
        seen = await manager.create(asked("w1"))
        none = await manager.create(NewWorkspace("w2", labels=JOB))
        left_in(seen, "x" * 1_000_000)
        used = {found.workspace_id: use.bytes for found, use in (await manager.usage(Page())).page}
    assert seen.home
    assert stat.S_IMODE(seen.home.stat().st_mode) == 0o700
    assert seen.layout.path
    assert not seen.home.is_relative_to(seen.layout.path), "it is in no commit, snapshot or artefact"
    assert none.home is None
    assert used["w1"] >= 1_000_000
    assert used["w2"] == 0


def many_files(home: Path) -> None:
    for number in range(2000):
        (home / str(number)).touch()


def deep(home: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    os.chdir(home)
    for _ in range(60):  # deeper than a path may be long
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    os.fchdir(before)
    os.close(before)


def links(home: Path) -> None:
    (home / "loop").symlink_to("loop")
    (home / "out").symlink_to(home.parents[2] / "precious")
    (home / "dots").symlink_to("../../..")


def unusable(home: Path) -> None:
    (home / "closed").mkdir(mode=0)
    home.chmod(0)


def no_files(home: Path) -> None:
    os.mkfifo(home / "pipe")
    os.mkfifo(home / "file")


@pytest.mark.parametrize("fill", [many_files, deep, links, unusable, no_files])
async def test_whatever_an_agent_has_put_there_is_taken_over_and_goes(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    async with managing(tmp_path) as manager:
        first = await manager.create(asked("w1"))
        assert first.home
        fill(first.home)
        await manager.usage(Page())
        await manager.set_state("w1", State.ERROR)
        second = await manager.create(asked("w2", max_home_bytes=100 << 20))
        assert second.workspace.home_workspace_id == "w1"
        assert second.home
        assert stat.S_IMODE(second.home.stat().st_mode) == 0o700
        await manager.delete("w1")
        await manager.delete("w2")
        assert not list((tmp_path / "trees").glob(".*/*"))
    assert (precious / "file").read_text() == "kept"


async def test_a_service_that_is_killed_leaves_none_behind(tmp_path: Path) -> None:
    async with managing(tmp_path) as manager:
        left_in(await manager.create(asked("w1")))
    unrecorded = tmp_path / "trees" / "w2"
    (unrecorded / "home").mkdir(parents=True)
    (unrecorded / "tree").mkdir()
    async with managing(tmp_path) as manager:
        await manager.recover()
        seen = await manager.get("w1")
    assert not unrecorded.exists()
    assert seen.home
    assert (seen.home / "file").read_text() == "kept"
