"""How a job ends by a simple client's word: what our own driver writes in many steps, in two."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from services.common.errors import FailedPrecondition
from services.gateway.checkpoints.model import Checkpoint
from services.lifecycle.ledger import Lease, Ledger
from services.lifecycle.model.checkpoint import CheckpointState, Origin, Question
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.states import ExecutionState, JobState
from services.lifecycle.retries import back_off

CANCELLED: Final = "CANCELLED"
"""The reason of whoever ends a job because somebody asked for that."""


def end_question(lease: Lease, output: Output) -> Question:
    """Return what a person is asked where a policy asks anything, and the client knows no way to ask before a stage."""
    return Question(
        name="end",
        origin=Origin.POLICY,
        text=f"Is the job done? Its client has asked nobody before {', '.join(lease.order.policy.checkpoints)}.",
        execution_id=lease.execution_id,
        seconds=lease.order.policy.checkpoint_timeout,
        output=output,
    )


def check_approved(asked: Checkpoint) -> None:
    """Raise FailedPrecondition (APPROVAL_REQUIRED) unless the answer was yes."""
    if asked.state is CheckpointState.APPROVED:
        return
    what = "renew the lease, and complete it again when that is answered"
    if asked.state is not CheckpointState.PENDING:
        what = "fail it with the reason REJECTED"
    raise FailedPrecondition(
        "APPROVAL_REQUIRED",
        f"job {asked.job_id!r} needs an approval, and checkpoint {asked.checkpoint_id!r} is {asked.state}: {what}",
        asked.job_id,
        metadata={"checkpoint_id": asked.checkpoint_id, "state": asked.state},
    )


async def complete(ledger: Ledger, lease: Lease, output: Output) -> None:
    """End a job SUCCEEDED. Each write may be repeated. Raises LeaseLost, LedgerUnavailable."""
    note = _ended(await ledger.execution(lease), ExecutionState.SUCCEEDED, output)
    await ledger.note(lease, note)
    await ledger.finish(lease, Outcome(JobState.SUCCEEDED))


async def fail(ledger: Ledger, lease: Lease, failure: Failure, output: Output) -> None:
    """End a job FAILED, or CANCELLED where the failure's reason says so, or have it wait for its next attempt.

    Each write may be repeated.

    Raises FailedPrecondition (CANCEL_NOT_REQUESTED), LeaseLost, LedgerUnavailable.
    """
    cancelled = failure.reason == CANCELLED
    if cancelled and not lease.cancel_requested:
        raise FailedPrecondition(
            "CANCEL_NOT_REQUESTED",
            f"nobody has asked for the end of job {lease.job_id!r}: fail it with another reason",
            lease.job_id,
        )
    state = ExecutionState.CANCELLED if cancelled else ExecutionState.FAILED
    note = _ended(await ledger.execution(lease), state, output)
    await ledger.note(lease, replace(note, reason="" if cancelled else failure.reason, message=failure.message))
    if failure.reason in lease.order.policy.retry_on and lease.attempt < lease.last_attempt:
        await ledger.retry(lease, Retry(failure, back_off(lease.attempt)))
        return
    await ledger.finish(lease, Outcome(JobState.CANCELLED) if cancelled else Outcome(JobState.FAILED, failure))


def _ended(note: ExecutionNote, state: ExecutionState, output: Output) -> ExecutionNote:
    now = datetime.now(UTC)
    return replace(note, state=state, start_time=note.start_time or now, end_time=now, output=output)
