"""What a driver tells its ledger, and reads in it, between messages and values."""

from collections.abc import Sequence
from typing import Final, TypeVar

from boatyard.gateway.v1 import agent_pb2, job_pb2
from boatyard.gateway.v1 import ledger_pb2 as pb

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
    """Read whose lease a call is made under."""
    return wire.held_lease_from_proto(check, holder.coordinator_id, holder.lease, "holder.")


def name_from_proto(check: Validator, field: str, name: str) -> str:
    """Read what a stage or a question is called."""
    if not 0 < len(name) <= _MAX_NAME_CHARACTERS or not name.isprintable():
        check.add(field, f"must be 1 to {_MAX_NAME_CHARACTERS} characters")
    return name


def stage_to_proto(stage: Stage) -> pb.RecordedStage:
    """Write a stage."""
    return pb.RecordedStage(
        name=stage.name, state=_STATE_NUMBERS[stage.state], result=stage.result.encode(), message=stage.message
    )


def ended_stage_from_proto(request: pb.EndStageRequest) -> tuple[HeldLease, Stage, list[ExecutionNote]]:
    """Read how a stage went. Raises Invalid."""
    with Validator() as check:
        whose = holder_from_proto(check, request.holder)
        check.part(request, "stage")
        if len(request.stage.result) > _MAX_RESULT_BYTES or not request.stage.result.isascii():
            check.add("stage.result", f"must be at most {_MAX_RESULT_BYTES // KIB} KiB of ASCII")
        stage = Stage(
            name_from_proto(check, "stage.name", request.stage.name),
            check.choice("stage.state", request.stage.state, _STATES),
            request.stage.result.decode("ascii", "replace"),
            check.text("stage.message", request.stage.message.replace("\0", "�"), _MAX_MESSAGE_BYTES),
        )
    notes = [_unpacked(f"notes[{number}]", ExecutionNote, each) for number, each in enumerate(request.notes)]
    return whose, stage, notes


def note_from_proto(request: pb.NoteExecutionRequest) -> tuple[HeldLease, ExecutionNote]:
    """Read an execution as it is now. Raises Invalid."""
    with Validator() as check:
        whose = holder_from_proto(check, request.holder)
    return whose, _unpacked("note", ExecutionNote, request.note)


def hook_call_from_proto(request: pb.RecordHookCallRequest) -> tuple[HeldLease, HookCall]:
    """Read how a call of a hook goes. Raises Invalid."""
    with Validator() as check:
        whose = holder_from_proto(check, request.holder)
    return whose, _unpacked("call", HookCall, request.call)


def question_from_proto(request: pb.ParkJobRequest) -> tuple[HeldLease, Question]:
    """Read what a person is asked. Raises Invalid."""
    with Validator() as check:
        whose = holder_from_proto(check, request.holder)
    return whose, _unpacked("question", Question, request.question)


def retry_from_proto(request: pb.RetryLaterRequest) -> tuple[HeldLease, Retry]:
    """Read how a job goes on. Raises Invalid."""
    with Validator() as check:
        whose = holder_from_proto(check, request.holder)
    retry = _unpacked("retry", Retry, request.retry)
    with Validator() as check:
        if not 0 <= retry.seconds <= _MAX_RETRY_SECONDS:
            check.add("retry", f"must wait for at most {_MAX_RETRY_SECONDS} s")
    return whose, retry


def outcome_from_proto(request: pb.FinishJobRequest) -> tuple[HeldLease, Outcome]:
    """Read how a job ends. Raises Invalid."""
    with Validator() as check:
        whose = holder_from_proto(check, request.holder)
    outcome = _unpacked("outcome", Outcome, request.outcome)
    with Validator() as check:
        if not outcome.state.is_final:
            check.add("outcome", "must be an end")
    return whose, outcome


def document_request_from_proto(request: pb.ReadDocumentRequest) -> tuple[HeldLease, str, Outcome | None]:
    """Read which document is wanted: of which stage, and for which end. Raises Invalid."""
    with Validator() as check:
        whose = holder_from_proto(check, request.holder)
        stage = name_from_proto(check, "stage", request.stage)
    return whose, stage, _unpacked("outcome", Outcome, request.outcome) if request.outcome else None


def standings_request_from_proto(request: pb.ReadStandingsRequest) -> tuple[str, Sequence[str]]:
    """Read whose jobs are asked for. Raises Invalid with all violations."""
    with Validator() as check:
        if len(request.jobs) > _MAX_JOBS:
            check.add("jobs", f"must be at most {_MAX_JOBS}")
        for number, job_id in enumerate(request.jobs):
            check.required_id(f"jobs[{number}]", job_id)
        return check.required_id("coordinator_id", request.coordinator_id), request.jobs


def standing_to_proto(job_id: str, value: JobStatus) -> pb.Standing:
    """Write how a coordinator stands to a job."""
    retention = agent_pb2.Policy.Retention.Value(f"RETENTION_{value.retention}")
    return pb.Standing(job_id=job_id, execution_id=value.execution_id, retention=retention)


def _unpacked(field: str, kind: type[Value], data: bytes) -> Value:
    """Read a value of the driver's own. Raises Invalid."""
    try:
        return unpack(kind, data)
    except ValueError:
        raise Invalid([(field, f"must be what a driver of this version packs: {kind.__name__}")]) from None
