"""The interface between the driver and the place where jobs are kept: SQL in a gateway, an API in a coordinator.

A job is held under a lease. The lease's fence is a number that grows with every claim, and every write depends on it:
a driver that has lost its lease cannot write any more. The ledger's clock is the only clock.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from services.agent.providers import ModelProvider
from services.common.fence import Fence
from services.lifecycle.model.budgets import Granting, ModelNeed, Settlement
from services.lifecycle.model.checkpoint import Decision, Question
from services.lifecycle.model.hook_calls import HookCall
from services.lifecycle.model.job_context import JobContext
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import StageState

PATIENCE_SECONDS: Final = 3600
"""How long machines may refuse a job before it fails: see `Lease.patience_seconds`."""


class LeaseLost(Exception):
    """Somebody else has the job, or it has ended: drop it, and change nothing of it."""


class LedgerUnavailable(Exception):
    """The ledger cannot be reached, and it is unknown whether the write was done. All writes may be repeated."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that is ours for now. `attempt` counts from 1; the attempt of another cell cannot be continued."""

    job_id: str
    fence: int
    attempt: int
    execution_id: str
    """The attempt's agent."""
    spec: JobSpec
    cancel_requested: bool = False
    is_moved: bool = False
    """Whether the attempt ran on another machine and is only completed here, because its result is public already: the
    remaining hooks are still to be called. Its workspace is not here."""
    last_attempt: int = 1
    """The number of the last attempt that the job may have."""
    snapshot_id: str = ""
    """The snapshot that this attempt starts from, in place of what the job's spec names. It is on this cell."""
    has_other_place: bool = False
    """Whether another cell, which has not refused it, could take it now."""
    patience_seconds: int = 0
    """For how long machines may still refuse it, without using up attempts, before it fails."""
    outage_seconds: int = 0
    """For how long it has waited for its models, without an answer in between."""
    is_last: bool = False
    """True when no other job waited, so that another claim would find nothing until somebody is woken for it."""

    @property
    def token(self) -> Fence:
        """Return the fence that the node services are shown."""
        return Fence(self.job_id, self.fence)


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat: the jobs that are still ours, and which of them are to be cancelled."""

    held: frozenset[str]
    cancel_requested: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stage:
    """A recorded step. `result` is JSON: what the step returned, or why it failed; empty while it runs."""

    name: str
    state: StageState
    result: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class StageEnd:
    """How a step ended, DONE or FAILED, and what is known of executions since."""

    stage: Stage
    notes: Sequence[ExecutionNote] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a driver begins a lease with: what is recorded of the attempt, and what its job needs beside its spec.

    `stages` are by name, in the order in which they began. `execution` is the attempt's agent: that of the last round,
    when changes were requested.
    """

    stages: Mapping[str, Stage]
    execution: ExecutionNote
    context: JobContext


@dataclass(frozen=True, slots=True)
class Document:
    """The JSON document of a job that a hook is sent, and the time when the stage began in which the hook is called."""

    data: bytes
    time: datetime


class Ledger(Protocol):
    """Every method may raise LedgerUnavailable, and every method that takes a lease LeaseLost."""

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts after a claim or a heartbeat."""
        ...

    async def claim(self) -> Lease | None:
        """Claim one job: of all that may be claimed, the oldest of the highest priority.

        MUST give a job to one claimer only, however many claim at once, with a fence higher than all before. A job may
        be claimed when it is PENDING and its time has come; when it was parked and is awake again (a job of another
        cell only while that cell is away); or when its lease has expired. A job that this cell had before it restarted
        comes before all others. A job that another cell worked on MUST get a new attempt, with another execution,
        unless the end of its attempt is public: it has pushed, or its post hooks are being called. During the first
        lease after the ledger was away no job of another cell is claimed, because no cell could renew its leases.
        """
        ...

    async def beat(self, leases: Collection[Lease]) -> Beat:
        """Renew leases. MUST NOT renew a lease whose fence is no longer the job's."""
        ...

    async def attempt(self, lease: Lease) -> Attempt:
        """Return what is recorded of the lease's attempt, with the job's context as it is now."""
        ...

    async def document(self, lease: Lease, stage: str, outcome: Outcome | None) -> Document:
        """Return the job as JSON, for the hook of a stage that has begun: as it is now, or as it ends with `outcome`.

        MUST stay the same until the stage ends: a hook that is called again gets the same document.
        """
        ...

    async def signing_key(self, lease: Lease, hook_id: str) -> bytes:
        """Return the key that signs a webhook's calls, or a callback's token; also for a hook that has been removed."""
        ...

    async def providers(self, lease: Lease) -> tuple[ModelProvider, ...]:
        """Return who answers, as of now, what the job's agent asks of a model, in the order in which they are tried."""
        ...

    async def reserve(self, lease: Lease, need: ModelNeed) -> Granting:
        """Reserve what a request to a model may need, in all budgets that bind the job: in each of them, or in none.

        MUST reserve once for each ask, however often it is called. What is not granted is not recorded: the same ask
        may be granted later.
        """
        ...

    async def settle(self, lease: Lease, use: Settlement) -> None:
        """Count what a request has used in place of what was reserved for it.

        MUST do so once for each ask, and nothing for an ask without a reservation. What is still reserved when the
        attempt ends, in whatever way, or waits for a person, is settled by the ledger as if all of it had been used.
        """
        ...

    async def begin_stage(self, lease: Lease, name: str, ended: Sequence[StageEnd] = ()) -> None:
        """Record how earlier steps ended, and then that a step begins: all of it or nothing.

        A step that is recorded already keeps its first time. A step may end that was not recorded as begun: it did
        nothing that anybody could notice. MUST change nothing of a step that has ended already, nor write its notes:
        the response to the first try was lost.
        """
        ...

    async def end_stage(self, lease: Lease, ended: StageEnd) -> None:
        """Record how a step ended, as `begin_stage` does, when no other begins yet."""
        ...

    async def note(self, lease: Lease, note: ExecutionNote) -> None:
        """Record an execution of the lease's attempt as it is now. Raises Invalid for one of another attempt."""
        ...

    async def record_call(self, lease: Lease, call: HookCall) -> None:
        """Record that a call of a hook begins (RUNNING), or how it ended, together with the labels that it sets.

        MUST keep one record for each call. A call that is begun again under another lease is counted; recording it
        twice under the same lease changes nothing. Calls that have not ended with their attempt become INTERRUPTED.
        """
        ...

    async def park(self, lease: Lease, question: Question) -> None:
        """Ask a person, and release the job until there is an answer or the question expires. Ends the lease.

        A question is asked once per attempt: an existing one of this name stays as it is. MUST succeed and change
        nothing when the same lease has parked the job already.
        """
        ...

    async def decision(self, lease: Lease, name: str) -> Decision | None:
        """Return the decision on a question of this attempt; None while it waits, or when it was never asked."""
        ...

    async def retry(self, lease: Lease, retry: Retry, ended: Sequence[StageEnd] = ()) -> None:
        """End the attempt as FAILED, and set the job to PENDING until its next attempt, which has another execution.

        A job whose cancellation was requested becomes CANCELLED instead. How the last steps `ended` is recorded first,
        all of it or nothing. MUST succeed and change nothing when the same lease has done so already.
        """
        ...

    async def finish(self, lease: Lease, outcome: Outcome, ended: Sequence[StageEnd] = ()) -> None:
        """End the job with all stages and executions that are still open, and give the lease back.

        How the last steps `ended` is recorded first, all of it or nothing. MUST succeed and change nothing when the
        same lease has ended the job already.
        """
        ...
