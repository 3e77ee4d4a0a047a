"""One job while a driver runs it: its steps, each recorded before the next begins, and its cancellation."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from services.agent.providers import ModelProvider, keys_by_name, with_own
from services.common.errors import FailedPrecondition, ServiceError
from services.common.room import DISK_FULL
from services.lifecycle.books import Books, LedgerBooks
from services.lifecycle.cancellation import Cancellable
from services.lifecycle.failures import INTERNAL, JobCancelled, JobFailed, Parked, explained
from services.lifecycle.ledger import Beat, Lease, LeaseLost, Ledger, LedgerUnavailable, Stage, StageEnd
from services.lifecycle.model.ids import agent_of, step_in, workspace_of
from services.lifecycle.model.job_context import JobContext
from services.lifecycle.model.node_work import EndedRun, Run
from services.lifecycle.model.outcome import Failure, Outcome, RetentionPeriods, Retry
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.states import Purpose, StageState
from services.lifecycle.model.value import Recorded, Value, dump, load
from services.lifecycle.nodes import JobNodes, Nodes
from services.lifecycle.secrets import job_redactor, within
from services.lifecycle.webhooks import PUBLIC, AllowList, Webhooks
from services.redaction.gaps import text_around_gaps
from services.redaction.strand import Redactor

T = TypeVar("T")

Around = Callable[["JobRun", str], Awaitable[None]]
After = Callable[["JobRun", str, Recorded], Awaitable[None]]

_MAX_MESSAGE = 1024
_LEDGER_RETRY_SECONDS = 0.2
OUTAGE_PAUSE_SECONDS = 30.0
"""How long a provider of models that did not answer is left alone at first."""
KEEPING_SECONDS = 30.0
"""How long a cancelled job's work may take to be kept, as a result and as a snapshot, each."""

log = structlog.get_logger()


class JobRun(Cancellable):
    """What the stages work with.

    `execution` is what is known of the attempt's agent; it is written with each stage that learns more. `round` counts
    from 1 how often the agent is started: again, in the same workspace, when a person requests changes.
    """

    def __init__(
        self,
        lease: Lease,
        ledger: Ledger,
        nodes: Nodes,
        webhooks: Webhooks,
        retention_periods: RetentionPeriods,
        *,
        own_providers: Sequence[ModelProvider] = (),
        providers_allowed: AllowList = PUBLIC,
        books: Books | None = None,
        outage_pause_seconds: float = OUTAGE_PAUSE_SECONDS,
    ) -> None:
        super().__init__()
        self.lease = lease
        self.spec = lease.spec
        self.ledger = ledger
        self.nodes: JobNodes = nodes.for_job(
            lease.token, self.pause, self.check_held, waits_for_room=lambda: self.has_agent_begun
        )
        self.webhooks = webhooks
        self._books = books
        self.retention_periods = retention_periods
        self.outage_pause_seconds = outage_pause_seconds
        self.secrets: Mapping[str, str] = {}
        self.recording = b""
        self.redactor = Redactor()
        self._has_providers = False
        self._own_providers = own_providers
        self._providers_allowed = providers_allowed
        self.stages: dict[str, Stage] = {}
        self.execution: ExecutionNote
        self._ended: list[StageEnd] = []  # not recorded yet: that is done in the write that lets anything else begin
        self._before: Around = _nothing
        self._after: After = _nothing
        self.round = 1
        self._held_until = time.monotonic() + ledger.lease_seconds
        if lease.cancel_requested:
            self.cancel()

    @property
    def books(self) -> Books:
        """Who grants what the agent asks of models."""
        if self._books is None:
            raise AssertionError("it is loaded first")
        return self._books

    @property
    def execution_id(self) -> str:
        """The id of the attempt's first agent; all other ids of the attempt are derived from it."""
        return self.lease.execution_id

    @property
    def agent_id(self) -> str:
        """The id of this round's agent."""
        return agent_of(self.execution_id, self.round)

    @property
    def workspace_id(self) -> str:
        """Where the agent works."""
        return workspace_of(self.execution_id)

    @property
    def start_snapshot_id(self) -> str:
        """The snapshot that the attempt begins from; empty when it begins from a revision."""
        return self.lease.snapshot_id or self.spec.snapshot_id

    async def load(self) -> JobContext:
        """Read what was recorded before, and return what the job needs beside its spec."""
        attempt = await self.retry_until_lease_lost(lambda: self.ledger.attempt(self.lease))
        self.stages, self.execution = dict(attempt.stages), attempt.execution
        self._has_providers = attempt.context.has_providers
        self._books = self._books or LedgerBooks(self.ledger, has_budgets=attempt.context.has_budgets)
        self.recording = attempt.context.recording
        self._keep_secret(attempt.context.secrets)
        if self.rounds_begun:  # by an earlier driver, and its agent may run
            await self.providers()
        return attempt.context

    @property
    def asks_models(self) -> bool:
        """True when the agent may ask somebody's models."""
        return self.spec.replay is None and (self._has_providers or bool(self._own_providers))

    async def providers(self) -> tuple[ModelProvider, ...]:
        """Return who answers what the agent asks of a model, as it is now. Nobody is told their keys."""
        known: tuple[ModelProvider, ...] = ()
        if self._has_providers:
            known = await self.retry_until_lease_lost(lambda: self.ledger.providers(self.lease))
        reachable = [within(self._providers_allowed, provider) for provider in known]
        found = with_own(reachable, self._own_providers, self.spec.agent.providers)
        self.redactor = job_redactor({**keys_by_name(found), **self.secrets})
        return found

    def _keep_secret(self, secrets: Mapping[str, str]) -> None:
        """Give these to the agent, and to nobody else: whatever is recorded from now on has their names alone."""
        self.secrets = secrets
        self.redactor = job_redactor(secrets)

    # Rounds.

    @property
    def rounds_begun(self) -> int:
        """How many rounds have begun: the agent was started in each, or was about to be."""
        return sum(name == "start" or name.startswith("start-") for name in self.stages)

    def in_round(self, name: str) -> str:
        """Return what a step is called in this round: without a number in the first."""
        return step_in(name, self.round)

    def begin_round(self) -> None:
        """Begin the next round, with what was recorded of its agent, or else with what all rounds share."""
        self.round += 1
        if self.recorded(self.in_round("start"), Run) is None:
            known = self.execution.output
            lacking = tuple(caveat for caveat in known.caveats if caveat.is_of_base)
            output = Output(base_commit_id=known.base_commit_id, branch=known.branch, caveats=lacking)
            self.execution = ExecutionNote(self.agent_id, Purpose.AGENT, self.workspace_id, output=output)

    @property
    def has_agent_begun(self) -> bool:
        """True when an agent was started in this attempt: what it leaves is on this machine alone."""
        return self.round > 1 or (self.recorded("start", Run) is not None and not self.lacked_room)

    @property
    def lacked_room(self) -> bool:
        """True when the attempt's first agent has not begun for lack of room on this machine."""
        start, ended = self.stages.get("start"), self.recorded("agent", EndedRun)
        if start is not None and start.state is StageState.FAILED:
            return load(Failure, start.result).reason == DISK_FULL
        return ended is not None and ended.run.reason == DISK_FULL

    # What the driver calls.

    def apply_beat(self, beat: Beat, sent: float) -> None:
        """Apply the answer to a heartbeat that was sent at `sent` (monotonic)."""
        if self.lease.job_id in beat.held:
            self._held_until = sent + self.ledger.lease_seconds
        if self.lease.job_id in beat.cancel_requested:
            self.cancel()

    @property
    def is_stale(self) -> bool:
        """True when the lease has expired, as far as we know."""
        return time.monotonic() > self._held_until

    def check_held(self) -> None:
        """Raise LeaseLost when the lease has expired: somebody else may have the job."""
        if self.is_stale:
            raise LeaseLost

    # What the stages call.

    async def step(
        self,
        name: str,
        kind: type[Value],
        work: Callable[[], Awaitable[Value]],
        learn: Callable[[ExecutionNote, Value], ExecutionNote] | None = None,
        tell: Callable[[Value], str] = lambda _: "",
    ) -> Value:
        """Do `work`, unless its result is recorded: then return that. The functions of `surround` are called around it.

        `learn` adds the result to what is known of the agent's execution; both are written at once. `tell` returns the
        text for the timeline. Raises JobFailed when the work fails, now and at every replay.
        """
        recorded = self.stages.get(name)
        if recorded is not None and recorded.state is StageState.FAILED:
            raise JobFailed(load(Failure, recorded.result))
        if recorded is not None and recorded.state is StageState.DONE:
            result = load(kind, recorded.result)
        else:
            if (
                recorded is None
            ):  # a step that was begun before a restart is finished first, even when the job was cancelled
                await self._before(self, name)
                self.check_cancelled()
            result = await self._done(name, work, learn, tell)
        await self._after(self, name, result)
        return result

    def surround(self, before: Around, after: After) -> None:
        """Call `before` before each step begins, and `after` when it is done, also at a replay.

        The step raises what they raise. They are called for their own steps too.
        """
        self._before, self._after = before, after

    async def _done(
        self,
        name: str,
        work: Callable[[], Awaitable[Value]],
        learn: Callable[[ExecutionNote, Value], ExecutionNote] | None,
        tell: Callable[[Value], str],
    ) -> Value:
        await self.retry_until_lease_lost(lambda: self.ledger.begin_stage(self.lease, name, self._ended))
        self._ended = []
        self.stages[name] = Stage(name, StageState.RUNNING)
        log.info("stage begins", stage=name)
        try:
            result = await work()
        except JobFailed as failed:
            failure = self._redacted(failed.failure)
            self._end(Stage(name, StageState.FAILED, dump(failure), failure.message))
            raise JobFailed(failure) from failed
        except ServiceError as error:
            if isinstance(error, FailedPrecondition) and error.reason == "STALE_FENCE":
                raise LeaseLost from error
            failure = self._redacted(explained(error, name))
            self._end(Stage(name, StageState.FAILED, dump(failure), failure.message))
            raise JobFailed(failure) from error
        except (JobCancelled, LeaseLost, Parked):
            raise
        except Exception as error:
            log.exception("a stage broke", stage=name)
            self._end(Stage(name, StageState.FAILED, dump(INTERNAL), INTERNAL.message))
            raise JobFailed(INTERNAL) from error
        if learn is not None:
            self.execution = learn(self.execution, result)
        self._end(Stage(name, StageState.DONE, dump(result), tell(result)), [self.execution] if learn else ())
        return result

    def settle(self, name: str, value: Recorded, told: str = "") -> None:
        """Record a value as a step that takes no time, unless it is recorded: before anything that follows from it.

        Raises JobCancelled.
        """
        if self.has_ended(name):
            return
        if not self.has_begun(name):
            self.check_cancelled()
        self._end(Stage(name, StageState.DONE, dump(value), told))

    def recorded(self, name: str, kind: type[Value]) -> Value | None:
        """Return the result of a step, done now or before a restart; None when it has not been done."""
        stage = self.stages.get(name)
        return load(kind, stage.result) if stage is not None and stage.state is StageState.DONE else None

    def has_begun(self, name: str) -> bool:
        """True when a step was begun, now or before a restart."""
        return name in self.stages

    def has_ended(self, name: str) -> bool:
        """True when a step is done or has failed."""
        return name in self.stages and self.stages[name].state is not StageState.RUNNING

    async def note(self, note: ExecutionNote) -> None:
        """Record an execution as it is now."""
        await self.retry_until_lease_lost(lambda: self.ledger.note(self.lease, note))

    async def finish(self, outcome: Outcome) -> None:
        """End the job."""
        await self.retry_until_lease_lost(lambda: self.ledger.finish(self.lease, outcome, self._ended))

    async def retry(self, retry: Retry) -> None:
        """Let the job wait for its next attempt."""
        await self.retry_until_lease_lost(lambda: self.ledger.retry(self.lease, retry, self._ended))

    def _end(self, stage: Stage, notes: Sequence[ExecutionNote] = ()) -> None:
        """Let a step end: it is recorded by the next write, which comes before all that depends on the step."""
        stage = replace(stage, message=self.redactor.text(stage.message)[:_MAX_MESSAGE])
        self._ended.append(StageEnd(stage, notes))
        self.stages[stage.name] = stage
        log.info("stage ends", stage=stage.name, state=stage.state, message=stage.message)

    def _redacted(self, failure: Failure) -> Failure:
        return replace(failure, message=text_around_gaps(self.redactor, failure.message))  # a long one was cut

    async def retry_until_lease_lost(self, write: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call while the ledger is unavailable, for as long as the job is ours. Raises LeaseLost."""
        while True:
            try:
                return await write()
            except LedgerUnavailable as error:
                if self.is_stale:
                    raise LeaseLost from error
                log.warning("the ledger is unavailable", error=str(error))
                await asyncio.sleep(_LEDGER_RETRY_SECONDS)


async def _nothing(*_: object) -> None:
    return
