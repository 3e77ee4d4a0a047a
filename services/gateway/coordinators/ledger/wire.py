"""Convert what a driver writes to its ledger and reads from it, between messages and values."""

from collections.abc import Sequence
from typing import Final, TypeVar

from boatyard.gateway.v1 import job_pb2, policy_pb2
from boatyard.ledger.v1 import ledger_pb2 as pb

from services.common.errors import Invalid
from services.gateway.coordinators import wire
from services.gateway.coordinators.model import HeldLease
from services.gateway.wire.validation import KIB, Validator
from services.lifecycle.ledger import Stage
from services.lifecycle.model.checkpoint import Question
from services.lifecycle.model.hook_calls import HookCall
from services.lifecycle.model.outcome import Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import StageState
from services.lifecycle.model.value import Recorded, unpack
from services.lifecycle.orphans import JobStatus

Value = TypeVar("Value", bound=Recorded)

_MAX_NAME_CHARACTERS: Final = 63
_MAX_RESULT_BYTES: Final = 3 << 20
_MAX_MESSAGE_BYTES: Final = 4 * KIB  # 1 KiB of characters
_MAX_JOBS: Final = 1000
_MAX_RETRY_SECONDS: Final = 3600

_STATES: Final = {
    job_pb2.StageRecord.STATE_DONE: StageState.DONE,
    job_pb2.StageRecord.STATE_FAILED: StageState.FAILED,
}
_STATE_NUMBERS: Final = {state: job_pb2.StageRecord.State.Value(f"STATE_{state}") for state in StageState}


def holder_from_proto(check: Validator, holder: pb.Holder) -> HeldLease:
    """Read the lease under which a call is made."""
    return wire.held_lease_from_proto(check, holder.coordinator_id, holder.lease, "holder.")


def name_from_proto(check: Validator, field: str, name: str) -> str:
    """Read the name of a stage or a question."""
    if not 0 < len(name) <= _MAX_NAME_CHARACTERS or not name.isprintable():
        check.add(field, f"must be 1 to {_MAX_NAME_CHARACTERS} characters")
    return name


def stage_to_proto(stage: Stage) -> pb.RecordedStage:
    """Write a stage."""
    return pb.RecordedStage(
        name=stage.name, state=_STATE_NUMBERS[stage.state], result=stage.result.encode(), message=stage.message
    )


def ended_stage_from_proto(request: pb.EndStageRequest) -> tuple[HeldLease, Stage, list[ExecutionNote]]:
    """Read a stage that has ended, and the executions to record with it. Raises Invalid."""
    with Validator() as check:
        held = holder_from_proto(check, request.holder)
        check.part(request, "stage")
        if len(request.stage.result) > _MAX_RESULT_BYTES or not request.stage.result.isascii():
            check.add("stage.result", f"must be at most {_MAX_RESULT_BYTES // KIB} KiB of ASCII")
        stage = Stage(
            name_from_proto(check, "stage.name", request.stage.name),
            check.choice("stage.state", request.stage.state, _STATES),
            request.stage.result.decode("ascii", "replace"),
            check.text("stage.message", request.stage.message.replace("\0", "�"), _MAX_MESSAGE_BYTES),
        )
    notes = [_unpacked(f"notes[{number}]", ExecutionNote, packed) for number, packed in enumerate(request.notes)]
    return held, stage, notes


def note_from_proto(request: pb.NoteExecutionRequest) -> tuple[HeldLease, ExecutionNote]:
    """Read the current state of an execution. Raises Invalid."""
    with Validator() as check:
        held = holder_from_proto(check, request.holder)
    return held, _unpacked("note", ExecutionNote, request.note)


def hook_call_from_proto(request: pb.RecordHookCallRequest) -> tuple[HeldLease, HookCall]:
    """Read the record of a hook's call. Raises Invalid."""
    with Validator() as check:
        held = holder_from_proto(check, request.holder)
    return held, _unpacked("call", HookCall, request.call)


def question_from_proto(request: pb.ParkJobRequest) -> tuple[HeldLease, Question]:
    """Read the question to a person. Raises Invalid."""
    with Validator() as check:
        held = holder_from_proto(check, request.holder)
    return held, _unpacked("question", Question, request.question)


def retry_from_proto(request: pb.RetryLaterRequest) -> tuple[HeldLease, Retry]:
    """Read when and why a job is tried again. Raises Invalid."""
    with Validator() as check:
        held = holder_from_proto(check, request.holder)
    retry = _unpacked("retry", Retry, request.retry)
    with Validator() as check:
        if not 0 <= retry.seconds <= _MAX_RETRY_SECONDS:
            check.add("retry", f"must wait for at most {_MAX_RETRY_SECONDS} s")
    return held, retry


def outcome_from_proto(request: pb.FinishJobRequest) -> tuple[HeldLease, Outcome]:
    """Read the outcome of a job. Raises Invalid."""
    with Validator() as check:
        held = holder_from_proto(check, request.holder)
    outcome = _unpacked("outcome", Outcome, request.outcome)
    with Validator() as check:
        if not outcome.state.is_final:
            check.add("outcome", "must be final")
    return held, outcome


def document_request_from_proto(request: pb.ReadDocumentRequest) -> tuple[HeldLease, str, Outcome | None]:
    """Read which document is requested: of which stage, and for which outcome. Raises Invalid."""
    with Validator() as check:
        held = holder_from_proto(check, request.holder)
        stage = name_from_proto(check, "stage", request.stage)
    return held, stage, _unpacked("outcome", Outcome, request.outcome) if request.outcome else None


def job_statuses_request_from_proto(request: pb.ReadJobStatusesRequest) -> tuple[str, Sequence[str]]:
    """Read the coordinator, and the jobs whose status it requests. Raises Invalid with all violations."""
    with Validator() as check:
        if len(request.jobs) > _MAX_JOBS:
            check.add("jobs", f"must be at most {_MAX_JOBS}")
        for number, job_id in enumerate(request.jobs):
            check.required_id(f"jobs[{number}]", job_id)
        return check.required_id("coordinator_id", request.coordinator_id), request.jobs


def job_status_to_proto(job_id: str, value: JobStatus) -> pb.JobStatus:
    """Write the status of a job on a coordinator."""
    retention = policy_pb2.Policy.Retention.Value(f"RETENTION_{value.retention}")
    return pb.JobStatus(job_id=job_id, execution_id=value.execution_id, retention=retention)


def _unpacked(field: str, kind: type[Value], data: bytes) -> Value:
    """Read a value that the driver has packed. Raises Invalid."""
    try:
        return unpack(kind, data)
    except ValueError:
        raise Invalid([(field, f"must be {kind.__name__}, as a driver of this version packs it")]) from None
