"""The driver on a ledger that fails at every possible place, with real node services: each time the right end, once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub

from services.agent.settings import AgentSettings, CommandEngine
from services.common.rpc.channel import open_channel
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.values.checkpoints import CheckpointDecision, Decider
from services.gateway.values.jobs import JobView
from services.lifecycle.driver import Driver
from services.lifecycle.ledger import LedgerUnavailable
from services.lifecycle.model.checkpoint import CheckpointState
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import JobState, Retention, StageState
from services.lifecycle.nodes import Nodes, RetryLimits
from tests.kit.ledger import Books
from tests.kit.services import Services

CALLS = ("attempt", "document", "signing_key", "begin_stage", "note", "finish")
NAMES = ("workspace", "git", "execution")


class Faulty:
    """A ledger that fails once: at its `number`th call, before or after it is done, by its own or its caller's end."""

    def __init__(
        self, ledger: SqlLedger, number: int, *, crash: bool, after: bool, calls: tuple[str, ...] = CALLS
    ) -> None:
        self._ledger = ledger
        self._number = number
        self._crash = crash
        self._after = after
        self._calls = calls
        self.failed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        return self._failing(method) if name in self._calls else method

    def _failing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any) -> Any:
            self._number -= 1
            if self._number != 0:
                return await method(*args)
            if self._after:
                await method(*args)
            self.failed.set()
            if self._crash:
                await asyncio.Event().wait()  # nothing more is heard of it
            raise LedgerUnavailable("as if the database were away")

        return call


@pytest_asyncio.fixture(scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Only the node services: the driver is in this process."""
    services = Services(tmp_path_factory.mktemp("services"))
    services.home.directory()
    try:
        for name in NAMES:
            services.start(name)
        await asyncio.gather(*map(services.serving, NAMES))
        yield services
    finally:
        for name in list(services.processes):
            services.end(name)


@asynccontextmanager
async def driving(driver: Driver) -> AsyncIterator[None]:
    task = asyncio.create_task(driver.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(book: Books, job_id: str) -> JobView:
    async with asyncio.timeout(30):
        while not (job := await book.store.job(job_id)).state.is_final:
            await asyncio.sleep(0.01)
    return job


async def admit(book: Books, command: str, **policy: Any) -> str:
    view = await book.admit(agent=AgentSettings(engine=CommandEngine(line=command)), policy=Policy(**policy))
    return view.spec.job_id


@pytest.mark.slow
async def test_whatever_becomes_of_any_write(book: Books, nodes: Nodes) -> None:
    """Hooks are none and there is no repository, so that a job is short: its steps are written all the same way."""
    calls = 0
    for number in range(1, 100):
        for crash, after in ((False, True), (True, False), (True, True)):
            job_id = await admit(book, "echo started")
            faulty = Faulty(await book.cell("cell"), number, crash=crash, after=after)
            async with driving(Driver(faulty, nodes, capacity=1, poll_seconds=0.02)):  # type: ignore[arg-type]
                if crash:
                    done = asyncio.create_task(ended(book, job_id))
                    broken = asyncio.create_task(faulty.failed.wait())
                    await asyncio.wait({done, broken}, return_when=asyncio.FIRST_COMPLETED)
                    done.cancel()
                    broken.cancel()
                    await asyncio.gather(done, broken, return_exceptions=True)
                else:
                    await ended(book, job_id)
            if crash:
                async with driving(Driver(await book.cell("cell"), nodes, capacity=1, poll_seconds=0.02)):
                    await ended(book, job_id)
            job = await book.store.job(job_id)
            assert job.state is JobState.SUCCEEDED, (number, crash, after, job)
            assert {stage.state for stage in job.timeline} == {StageState.DONE}
            assert job.executions[0].output.log_tail == b"started\n"
            assert len(job.executions) == 1
        calls = number
        if not faulty.failed.is_set():
            break
    assert 8 < calls < 99, "every write of a job's life was tried"


@pytest.mark.slow
async def test_whatever_becomes_of_a_question(book: Books, nodes: Nodes) -> None:
    """It is asked once, and its answer heard, whichever write fails or is the last of a driver."""
    policy = {"checkpoints": Checkpoints(("start", "end"))}
    calls = 0
    for number in range(1, 20):
        for crash, after in ((False, True), (True, False), (True, True)):
            job_id = await admit(book, "echo started", **policy)
            cell, fault = await book.cell("cell"), {"crash": crash, "after": after, "calls": ("park", "decision")}
            faulty = Faulty(cell, number, **fault)  # type: ignore[arg-type]
            async with approving(book, job_id) as done:
                async with driving(Driver(faulty, nodes, capacity=1, poll_seconds=0.02)):  # type: ignore[arg-type]
                    broken = asyncio.create_task(faulty.failed.wait())
                    await asyncio.wait({done, broken} if crash else {done}, return_when=asyncio.FIRST_COMPLETED)
                    broken.cancel()
                async with driving(Driver(await book.cell("cell"), nodes, capacity=1, poll_seconds=0.02)):
                    job = await done
            assert job.state is JobState.SUCCEEDED, (number, crash, after, job)
            assert [one.name for one in job.checkpoints] == ["start", "end"]
            assert job.executions[0].output.log_tail == b"started\n"
        calls = number
        if not faulty.failed.is_set():
            break
    assert calls == 7, "each question is looked for, asked, and looked for again"


@asynccontextmanager
async def approving(book: Books, job_id: str) -> AsyncIterator[asyncio.Task[JobView]]:
    """Approve what a job asks; the task is done when the job is."""

    async def approve() -> JobView:
        async with asyncio.timeout(60):
            while not (job := await book.store.job(job_id)).state.is_final:
                for one in job.checkpoints:
                    yes = CheckpointDecision(state=CheckpointState.APPROVED, comment="", decider=Decider())
                    await book.checkpoints.decide(one.checkpoint_id, yes)
                await asyncio.sleep(0.02)
        return job

    task = asyncio.create_task(approve())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.slow
async def test_an_owner_that_was_frozen_leaves_everything_to_the_next(book: Books, nodes: Nodes) -> None:
    job_id = await admit(book, "echo started; sleep 1", retention=Retention.KEEP)
    frozen = Faulty(await book.cell("cell", lease_seconds=1), 9, crash=True, after=False)
    driver = Driver(frozen, nodes, capacity=1, poll_seconds=0.02)  # type: ignore[arg-type]
    async with driving(driver):
        await frozen.failed.wait()
        async with driving(Driver(await book.cell("cell"), nodes, capacity=1, poll_seconds=0.02)):
            job = await ended(book, job_id)
        async with asyncio.timeout(10):
            while driver.running_jobs:  # its heartbeat tells it
                await asyncio.sleep(0.01)
    assert job.state is JobState.SUCCEEDED
    assert job.executions[0].output.log_tail == b"started\n"


@pytest.mark.slow
async def test_a_lost_job_is_dropped_and_its_agent_not_touched(book: Books, nodes: Nodes, services: Services) -> None:
    job_id = await admit(book, "sleep 1; echo whole")
    driver = Driver(await book.cell("cell", lease_seconds=0.6), nodes, capacity=1, poll_seconds=0.02)
    async with driving(driver):
        async with asyncio.timeout(20):
            while not any(stage.name == "agent" for stage in (await book.store.job(job_id)).timeline):
                await asyncio.sleep(0.01)
        thief = await book.cell("cell")
        lease = await thief.claim()
        assert lease is not None
        async with asyncio.timeout(20):
            while driver.running_jobs:
                await asyncio.sleep(0.01)
    async with open_channel(services.address("execution"), services.home.cell_token()) as channel:
        wait = execution_pb.WaitExecutionRequest(execution_id=lease.execution_id)
        run = (await ExecutionServiceStub(channel).WaitExecution(wait, timeout=20)).execution
    assert run.state == execution_pb.NodeExecution.STATE_SUCCEEDED


@pytest.mark.slow
async def test_a_node_that_stays_away_ends_the_job(book: Books, services: Services) -> None:
    async with AsyncExitStack() as stack:
        token = services.home.cell_token()
        nobody = await stack.enter_async_context(open_channel("127.0.0.1:1", token))
        nodes = Nodes(nobody, nobody, nobody, RetryLimits(away=0.5))
        job_id = await admit(book, "true")
        async with driving(Driver(await book.cell("cell"), nodes, capacity=1)):
            job = await ended(book, job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "NODE_LOST")


@pytest.mark.slow
async def test_a_job_is_tried_again_after_what_its_policy_names(book: Books, nodes: Nodes) -> None:
    job_id = await admit(book, "exit 3", max_attempts=2, retry_on=("AGENT_FAILED",))
    other_id = await admit(book, "exit 3", max_attempts=2)
    async with driving(Driver(await book.cell("cell"), nodes, capacity=2, poll_seconds=0.02)):
        job, other = await ended(book, job_id), await ended(book, other_id)
    assert (job.state, job.reason) == (JobState.FAILED, "AGENT_FAILED")
    assert job.message.endswith("(attempt 2)")
    assert [run.reason for run in job.executions] == ["AGENT_FAILED", "AGENT_FAILED"]
    assert all(run.output.exit_code == 3 for run in job.executions)
    assert len(other.executions) == 1, "nobody said that its own failures are worth another try"
