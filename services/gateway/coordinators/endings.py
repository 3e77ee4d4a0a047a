"""Ends a job at a simple client's request, in two writes where our own driver makes many."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from services.common.errors import FailedPrecondition
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.values.checkpoints import Checkpoint
from services.lifecycle.ledger import Lease
from services.lifecycle.model.checkpoint import CheckpointState, Origin, Question
from services.lifecycle.model.floor import protected_paths
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.states import ExecutionState, JobState
from services.lifecycle.retries import back_off

CANCELLED: Final = "CANCELLED"
"""The reason with which a client ends a job because its cancellation was requested."""


def end_question(lease: Lease, output: Output) -> Question | None:
    """Return the question for a job for which a person is asked, as its client cannot ask before a stage."""
    stages, paths = lease.spec.policy.checkpoints.before, protected_paths(lease.spec.floors)
    asked = f"Its client has asked nobody before {', '.join(stages)}." if stages else ""
    looked = f"Nobody has looked at whether it changes protected paths: {', '.join(paths)}." if paths else ""
    if not asked and not looked:
        return None
    return Question(
        name="end",
        origin=Origin.POLICY,
        text=" ".join(filter(None, ("Is the job done?", asked, looked))),
        execution_id=lease.execution_id,
        seconds=lease.spec.policy.checkpoint_timeout.total_seconds(),
        output=output,
    )


def check_approved(checkpoint: Checkpoint) -> None:
    """Raise FailedPrecondition (APPROVAL_REQUIRED) unless the checkpoint is approved."""
    if checkpoint.state is CheckpointState.APPROVED:
        return
    advice = "renew the lease, and complete the job again when the checkpoint is decided"
    if checkpoint.state is not CheckpointState.PENDING:
        advice = "fail the job with the reason REJECTED"
    raise FailedPrecondition(
        "APPROVAL_REQUIRED",
        f"job {checkpoint.job_id!r} needs an approval,"
        f" and checkpoint {checkpoint.checkpoint_id!r} is {checkpoint.state}: {advice}",
        checkpoint.job_id,
        metadata={"checkpoint_id": checkpoint.checkpoint_id, "state": checkpoint.state},
    )


async def complete(ledger: SqlLedger, lease: Lease, output: Output) -> None:
    """End a job as SUCCEEDED. Each write may be repeated. Raises LeaseLost, LedgerUnavailable."""
    note = _ended_note(await ledger.execution(lease), ExecutionState.SUCCEEDED, output)
    await ledger.note(lease, note)
    await ledger.finish(lease, Outcome(JobState.SUCCEEDED))


async def fail(ledger: SqlLedger, lease: Lease, failure: Failure, output: Output) -> None:
    """End a job as FAILED, or as CANCELLED when that is the failure's reason, or have it wait for its next attempt.

    Each write may be repeated.

    Raises FailedPrecondition (CANCEL_NOT_REQUESTED), LeaseLost, LedgerUnavailable.
    """
    is_cancelled = failure.reason == CANCELLED
    if is_cancelled and not lease.cancel_requested:
        raise FailedPrecondition(
            "CANCEL_NOT_REQUESTED",
            f"nobody has requested the cancellation of job {lease.job_id!r}: fail it with another reason",
            lease.job_id,
        )
    state = ExecutionState.CANCELLED if is_cancelled else ExecutionState.FAILED
    note = _ended_note(await ledger.execution(lease), state, output)
    await ledger.note(lease, replace(note, reason="" if is_cancelled else failure.reason, message=failure.message))
    if failure.reason in lease.spec.policy.retry_on and lease.attempt < lease.last_attempt:
        await ledger.retry(lease, Retry(failure, back_off(lease.attempt)))
        return
    await ledger.finish(lease, Outcome(JobState.CANCELLED) if is_cancelled else Outcome(JobState.FAILED, failure))


def _ended_note(note: ExecutionNote, state: ExecutionState, output: Output) -> ExecutionNote:
    now = datetime.now(UTC)
    return replace(note, state=state, start_time=note.start_time or now, end_time=now, output=output)
