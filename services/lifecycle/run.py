"""One job in its driver's hands: its steps, each recorded before the next begins, and its end when somebody asks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import structlog

from services.common.errors import FailedPrecondition, ServiceError
from services.lifecycle.failures import INTERNAL, JobCancelled, JobFailed, Parked, explained
from services.lifecycle.ledger import Beat, Lease, LeaseLost, Ledger, LedgerUnavailable, Stage
from services.lifecycle.model.node_work import Run
from services.lifecycle.model.outcome import Failure, RetentionPeriods
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.states import Purpose, StageState
from services.lifecycle.model.value import Recorded, Value, dump, load
from services.lifecycle.nodes import JobNodes, Nodes
from services.lifecycle.webhooks import Webhooks

T = TypeVar("T")

Around = Callable[["JobRun", str], Awaitable[None]]
After = Callable[["JobRun", str, Recorded], Awaitable[None]]

_MAX_MESSAGE = 1024
_LEDGER_RETRY_SECONDS = 0.2

log = structlog.get_logger()


class JobRun:
    """What the stages work with.

    `execution` is the attempt's agent as it is known now; it is written with the stage that learns more of it. `round`
    counts from 1 how often the agent is started: again, in the same workspace, when a person asks for changes.
    """

    def __init__(
        self, lease: Lease, ledger: Ledger, nodes: Nodes, webhooks: Webhooks, keeping: RetentionPeriods
    ) -> None:
        self.lease = lease
        self.order = lease.order
        self.ledger = ledger
        self.nodes: JobNodes = nodes.for_job(lease.token, self.pause, self.check_held)
        self.webhooks = webhooks
        self.keeping = keeping
        self.stages: dict[str, Stage] = {}
        self.execution: ExecutionNote
        self._before: Around = _nothing
        self._after: After = _nothing
        self.round = 1
        self._cancelled = asyncio.Event()
        self._uninterrupted = 0
        self._held_until = time.monotonic() + ledger.lease_seconds
        if lease.cancel_requested:
            self._cancelled.set()

    @property
    def execution_id(self) -> str:
        """The attempt's first agent; ids of all else of this attempt are made of it."""
        return self.lease.execution_id

    @property
    def agent_id(self) -> str:
        """The agent of this round."""
        return agent_of(self.execution_id, self.round)

    @property
    def workspace_id(self) -> str:
        """Where the agent works."""
        return workspace_of(self.execution_id)

    async def load(self) -> None:
        """Learn what was recorded before."""
        self.stages = dict(await self.retry_until_lease_lost(lambda: self.ledger.stages(self.lease)))
        self.execution = await self.retry_until_lease_lost(lambda: self.ledger.execution(self.lease))

    # Rounds.

    @property
    def rounds_begun(self) -> int:
        """How often the agent has been started, or was about to be."""
        return sum(name == "start" or name.startswith("start-") for name in self.stages)

    def in_round(self, name: str) -> str:
        """Return what a step is called in this round: without a number in the first."""
        return step_in(name, self.round)

    def begin_round(self) -> None:
        """Go on to the next round: with what was recorded of its agent, or else with what holds for all of them."""
        self.round += 1
        if self.recorded(self.in_round("start"), Run) is None:
            known = self.execution.output
            output = Output(base_commit_id=known.base_commit_id, branch=known.branch)
            self.execution = ExecutionNote(self.agent_id, Purpose.AGENT, self.workspace_id, output=output)

    # What the driver tells.

    def apply_beat(self, beat: Beat, sent: float) -> None:
        """Take a heartbeat's answer; `sent` is when it was asked for (monotonic)."""
        if self.lease.job_id in beat.held:
            self._held_until = sent + self.ledger.lease_seconds
        if self.lease.job_id in beat.cancel_requested:
            self._cancelled.set()

    @property
    def is_stale(self) -> bool:
        """Whether the lease has run out, for all that we know."""
        return time.monotonic() > self._held_until

    def check_held(self) -> None:
        """Raise LeaseLost when the lease has run out: somebody else may have the job."""
        if self.is_stale:
            raise LeaseLost

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody wants the job to end."""
        return self._cancelled.is_set()

    # What the stages do.

    async def step(
        self,
        name: str,
        kind: type[Value],
        work: Callable[[], Awaitable[Value]],
        learn: Callable[[ExecutionNote, Value], ExecutionNote] | None = None,
        tell: Callable[[Value], str] = lambda _: "",
    ) -> Value:
        """Do `work`, unless its result is recorded: then return that. What is to come around the step comes around it.

        `learn` puts the result into what is known of the agent's execution; both are written at once. `tell` says what
        the timeline shows of it. Raises JobFailed, now and at every replay, when the work fails.
        """
        recorded = self.stages.get(name)
        if recorded is not None and recorded.state is StageState.FAILED:
            raise JobFailed(load(Failure, recorded.result))
        if recorded is not None and recorded.state is StageState.DONE:
            result = load(kind, recorded.result)
        else:
            if recorded is None:  # what was begun before a restart is looked at, whoever asks for what
                await self._before(self, name)
                self.check_cancelled()
            result = await self._done(name, work, learn, tell)
        await self._after(self, name, result)
        return result

    def surround(self, before: Around, after: After) -> None:
        """Have `before` called before each step begins, and `after` when it is done, also at a replay.

        What they raise is raised by the step. Steps of their own are theirs to tell from others.
        """
        self._before, self._after = before, after

    async def _done(
        self,
        name: str,
        work: Callable[[], Awaitable[Value]],
        learn: Callable[[ExecutionNote, Value], ExecutionNote] | None,
        tell: Callable[[Value], str],
    ) -> Value:
        await self.retry_until_lease_lost(lambda: self.ledger.begin_stage(self.lease, name))
        self.stages[name] = Stage(name, StageState.RUNNING)
        log.info("stage begins", stage=name)
        try:
            result = await work()
        except JobFailed as failed:
            await self._end(Stage(name, StageState.FAILED, dump(failed.failure), failed.failure.message))
            raise
        except ServiceError as error:
            if isinstance(error, FailedPrecondition) and error.reason == "STALE_FENCE":
                raise LeaseLost from error
            failure = explained(error, name)
            await self._end(Stage(name, StageState.FAILED, dump(failure), failure.message))
            raise JobFailed(failure) from error
        except (JobCancelled, LeaseLost, Parked):
            raise
        except Exception as error:
            log.exception("a stage broke", stage=name)
            await self._end(Stage(name, StageState.FAILED, dump(INTERNAL), INTERNAL.message))
            raise JobFailed(INTERNAL) from error
        if learn is not None:
            self.execution = learn(self.execution, result)
        await self._end(Stage(name, StageState.DONE, dump(result), tell(result)), [self.execution] if learn else ())
        return result

    def recorded(self, name: str, kind: type[Value]) -> Value | None:
        """Return what a step came to, now or before a restart; None when it has not been done."""
        stage = self.stages.get(name)
        return load(kind, stage.result) if stage is not None and stage.state is StageState.DONE else None

    def has_begun(self, name: str) -> bool:
        """Whether a step was begun, now or before a restart."""
        return name in self.stages

    def has_ended(self, name: str) -> bool:
        """Whether a step was done, or has failed."""
        return name in self.stages and self.stages[name].state is not StageState.RUNNING

    async def note(self, note: ExecutionNote) -> None:
        """Record an execution as it is now."""
        await self.retry_until_lease_lost(lambda: self.ledger.note(self.lease, note))

    async def unless_cancelled(self, work: Awaitable[T]) -> T:
        """Wait for `work`, and cut it short when the job is to end. Raises JobCancelled."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise JobCancelled
            return await task
        finally:
            asked.cancel()
            if not task.done():
                task.cancel()
                # Whatever it holds is let go of before anything else is begun; how it ends then is nobody's concern.
                await asyncio.gather(task, return_exceptions=True)

    async def interruptible(self, work: Awaitable[T]) -> T:
        """Wait for `work`, as `unless_cancelled`, but to its end where the block is uninterrupted."""
        return await (work if self._uninterrupted else self.unless_cancelled(work))

    async def pause(self, seconds: float) -> None:
        """Wait before something is tried again, interruptible."""
        await self.interruptible(asyncio.sleep(seconds))

    def check_cancelled(self) -> None:
        """Raise JobCancelled when the job is to end, unless the block is uninterrupted."""
        if self.cancel_requested and not self._uninterrupted:
            raise JobCancelled

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Go through the block to its end, whoever wants the job to end."""
        self._uninterrupted += 1
        try:
            yield
        finally:
            self._uninterrupted -= 1

    async def _end(self, stage: Stage, notes: Sequence[ExecutionNote] = ()) -> None:
        stage = replace(stage, message=stage.message[:_MAX_MESSAGE])
        await self.retry_until_lease_lost(lambda: self.ledger.end_stage(self.lease, stage, notes))
        self.stages[stage.name] = stage
        log.info("stage ends", stage=stage.name, state=stage.state, message=stage.message)

    async def retry_until_lease_lost(self, write: Callable[[], Awaitable[T]]) -> T:
        """Wait a lost ledger out, for as long as the job is ours."""
        while True:
            try:
                return await write()
            except LedgerUnavailable as error:
                if self.is_stale:
                    raise LeaseLost from error
                log.warning("the ledger is away", error=str(error))
                await asyncio.sleep(_LEDGER_RETRY_SECONDS)


async def _nothing(*_: object) -> None:
    return


def agent_of(execution_id: str, number: int) -> str:
    """Return the id of the agent of a round; `execution_id` is the first one's."""
    return execution_id if number == 1 else f"{execution_id}-round-{number}"


def step_in(name: str, number: int) -> str:
    """Return what a step is called in a round."""
    return name if number == 1 else f"{name}-{number}"


def workspace_of(execution_id: str) -> str:
    """Return the id of the workspace that an execution works in."""
    return "ws-" + execution_id.removeprefix("exec-")


def snapshot_of(execution_id: str) -> str:
    """Return the id of what is kept of an agent's workspace."""
    return "snap-" + execution_id.removeprefix("exec-")


def execution_of_snapshot(snapshot_id: str) -> str:
    """Return the execution whose workspace a snapshot is of; of an id that is no snapshot's, one that is nobody's."""
    return "exec-" + snapshot_id.removeprefix("snap-")
