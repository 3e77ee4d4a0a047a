"""The seam between the driver and wherever jobs are kept: SQL in a gateway, an API in a coordinator.

A job is held under a lease. Its fence is a number that grows with every claim, and every write is conditional on it:
whoever has lost a lease can write nothing more. The ledger's own clock is the only clock.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.common.fence import Fence
from services.lifecycle.model.checkpoint import Decision, Question
from services.lifecycle.model.hook_calls import HookCall
from services.lifecycle.model.job_context import JobContext
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import StageState


class LeaseLost(Exception):
    """Somebody else has the job, or it has ended: whoever is told so drops it, and touches nothing of it."""


class LedgerUnavailable(Exception):
    """The ledger cannot be reached; whether the write was done is not known. All writes may be repeated."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that is ours for now. `attempt` counts from 1; another cell's attempt cannot be gone on with."""

    job_id: str
    fence: int
    attempt: int
    execution_id: str
    """The attempt's agent."""
    order: JobSpec
    cancel_requested: bool = False
    is_moved: bool = False
    """Whether the attempt was another machine's, and goes on here because others know of its end already: what is left
    to be done is to tell the rest of them. Its workspace is not here."""
    last_attempt: int = 1
    """The attempt after which there is no other."""
    snapshot_id: str = ""
    """What this attempt begins from in place of what the order says; of this cell."""

    @property
    def token(self) -> Fence:
        """Return what is shown to the node services."""
        return Fence(self.job_id, self.fence)


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat told: the jobs that are still ours, and those of them that are to end."""

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
class Document:
    """A job as a hook is told it, JSON, and when the stage began in which it is."""

    data: bytes
    time: datetime


class Ledger(Protocol):
    """Every method may raise LedgerUnavailable, and every method that takes a lease LeaseLost."""

    @property
    def lease_seconds(self) -> float:
        """How long a job stays ours after a claim or a beat."""
        ...

    async def claim(self) -> Lease | None:
        """Take one job: of those that may be taken, one of the highest priority, and of these the oldest.

        MUST give one job to one claimer, however many claim at once, with a fence higher than all before. A job may be
        taken that is PENDING and whose time has come; that was parked and is awake again (another cell's only when
        that cell is away); or whose lease has run out. One that was this cell's own before the cell restarted comes
        before all others. One that was worked on by another cell MUST get a new attempt, with another execution,
        unless others know how its attempt ended: it has pushed, or the hooks after its end are being called. Nothing
        of another cell's is taken in the first lease after the ledger was away, when no cell could prolong anything.
        """
        ...

    async def beat(self, leases: Collection[Lease]) -> Beat:
        """Prolong leases. MUST NOT prolong one whose fence is no longer the job's."""
        ...

    async def surroundings(self, lease: Lease) -> JobContext:
        """Return what the job needs beside its order, as it is now."""
        ...

    async def document(self, lease: Lease, stage: str, outcome: Outcome | None) -> Document:
        """Return the job as JSON, for the hook of a stage that has begun: as it is now, or as it is to end.

        MUST be the same again until the stage ends: a hook that is called once more is told the same.
        """
        ...

    async def signing_key(self, lease: Lease, hook_id: str) -> bytes:
        """Return what a webhook's calls are signed with, or the token that a callback shows, also of a removed hook."""
        ...

    async def stages(self, lease: Lease) -> Mapping[str, Stage]:
        """Return what is recorded of the lease's attempt, by name, in the order in which the stages began."""
        ...

    async def begin_stage(self, lease: Lease, name: str) -> None:
        """Record that a step begins. Recorded already, it keeps its first time."""
        ...

    async def end_stage(self, lease: Lease, stage: Stage, notes: Sequence[ExecutionNote] = ()) -> None:
        """Record how a step went, DONE or FAILED, and with it what is known of executions now: all, or nothing.

        MUST be a success, and change nothing, when the stage has ended already: the answer to the first try was lost.
        """
        ...

    async def note(self, lease: Lease, note: ExecutionNote) -> None:
        """Record an execution as it is now."""
        ...

    async def record_call(self, lease: Lease, call: HookCall) -> None:
        """Record that a call of a hook begins (RUNNING), or how it has ended, and with that the labels that it gives.

        MUST keep one record a call: begun under another lease than before it is begun again, and that is counted; done
        twice under one lease it is done. Calls that have not ended when their attempt does become INTERRUPTED.
        """
        ...

    async def execution(self, lease: Lease) -> ExecutionNote:
        """Return what is recorded of the attempt's agent; of the last round's, where changes were asked for."""
        ...

    async def park(self, lease: Lease, question: Question) -> None:
        """Ask a person, and give the job back until there is an answer, or the question has expired. Ends the lease.

        A question is asked once an attempt: one of this name that is there stays as it is. MUST be a success, and
        change nothing, when the same lease has parked the job already.
        """
        ...

    async def decision(self, lease: Lease, name: str) -> Decision | None:
        """Return what a question of this attempt came to; None while it waits, or where it was never asked."""
        ...

    async def retry(self, lease: Lease, retry: Retry) -> None:
        """End the attempt, FAILED, and have the job wait for the next one, which has another execution, PENDING.

        A job that is asked to end is CANCELLED instead. MUST be a success when the same lease has done so already.
        """
        ...

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """End the job, and what has not ended of its stages and executions, and give the lease back.

        MUST be a success when the same lease has ended it already.
        """
        ...
