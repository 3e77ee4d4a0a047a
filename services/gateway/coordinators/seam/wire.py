"""The seam's values between messages and their own kinds."""

from collections.abc import Sequence
from typing import Final

from boatyard.gateway.v1 import agent_pb2, job_pb2
from boatyard.gateway.v1 import ledger_pb2 as pb

from services.gateway.coordinators import wire
from services.gateway.coordinators.model import Held
from services.gateway.wire import KIB, Checks
from services.lifecycle.ledger import Stage
from services.lifecycle.model.checkpoint import Question
from services.lifecycle.model.hook_calls import HookCall
from services.lifecycle.model.outcome import Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import StageState
from services.lifecycle.orphans import JobStatus

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


def held(check: Checks, holder: pb.Holder) -> Held:
    """Read whose lease a call is made under."""
    return wire.held(check, holder.coordinator_id, holder.lease, "holder.")


def name_of(check: Checks, field: str, name: str) -> str:
    """Read what a stage or a question is called."""
    if not 0 < len(name) <= _MAX_NAME_CHARACTERS or not name.isprintable():
        check.add(field, f"must be 1 to {_MAX_NAME_CHARACTERS} characters")
    return name


def recorded(stage: Stage) -> pb.RecordedStage:
    """Write a stage."""
    return pb.RecordedStage(
        name=stage.name, state=_STATE_NUMBERS[stage.state], result=stage.result.encode(), message=stage.message
    )


def ended(request: pb.EndStageRequest) -> tuple[Held, Stage, list[ExecutionNote]]:
    """Read how a stage went. Raises Invalid."""
    with Checks() as check:
        whose = held(check, request.holder)
        check.part(request, "stage")
        if len(request.stage.result) > _MAX_RESULT_BYTES or not request.stage.result.isascii():
            check.add("stage.result", f"must be at most {_MAX_RESULT_BYTES // KIB} KiB of ASCII")
        stage = Stage(
            name_of(check, "stage.name", request.stage.name),
            check.choice("stage.state", request.stage.state, _STATES),
            request.stage.result.decode("ascii", "replace"),
            check.text("stage.message", request.stage.message.replace("\0", "�"), _MAX_MESSAGE_BYTES),
        )
    notes = [wire.value(f"notes[{number}]", ExecutionNote, each) for number, each in enumerate(request.notes)]
    return whose, stage, notes


def note(request: pb.NoteExecutionRequest) -> tuple[Held, ExecutionNote]:
    """Read an execution as it is now. Raises Invalid."""
    with Checks() as check:
        whose = held(check, request.holder)
    return whose, wire.value("note", ExecutionNote, request.note)


def call(request: pb.RecordHookCallRequest) -> tuple[Held, HookCall]:
    """Read how a call of a hook goes. Raises Invalid."""
    with Checks() as check:
        whose = held(check, request.holder)
    return whose, wire.value("call", HookCall, request.call)


def question(request: pb.ParkJobRequest) -> tuple[Held, Question]:
    """Read what a person is asked. Raises Invalid."""
    with Checks() as check:
        whose = held(check, request.holder)
    return whose, wire.value("question", Question, request.question)


def retry(request: pb.RetryLaterRequest) -> tuple[Held, Retry]:
    """Read how a job goes on. Raises Invalid."""
    with Checks() as check:
        whose = held(check, request.holder)
    found = wire.value("retry", Retry, request.retry)
    with Checks() as check:
        if not 0 <= found.seconds <= _MAX_RETRY_SECONDS:
            check.add("retry", f"must wait for at most {_MAX_RETRY_SECONDS} s")
    return whose, found


def outcome(request: pb.FinishJobRequest) -> tuple[Held, Outcome]:
    """Read how a job ends. Raises Invalid."""
    with Checks() as check:
        whose = held(check, request.holder)
    found = wire.value("outcome", Outcome, request.outcome)
    with Checks() as check:
        if not found.state.is_final:
            check.add("outcome", "must be an end")
    return whose, found


def document_wanted(request: pb.ReadDocumentRequest) -> tuple[Held, str, Outcome | None]:
    """Read which document is wanted: of which stage, and for which end. Raises Invalid."""
    with Checks() as check:
        whose = held(check, request.holder)
        stage = name_of(check, "stage", request.stage)
    return whose, stage, wire.value("outcome", Outcome, request.outcome) if request.outcome else None


def standings_wanted(request: pb.ReadStandingsRequest) -> tuple[str, Sequence[str]]:
    """Read whose jobs are asked for. Raises Invalid with all violations."""
    with Checks() as check:
        if len(request.jobs) > _MAX_JOBS:
            check.add("jobs", f"must be at most {_MAX_JOBS}")
        for number, job_id in enumerate(request.jobs):
            check.required_id(f"jobs[{number}]", job_id)
        return check.required_id("coordinator_id", request.coordinator_id), request.jobs


def standing(job_id: str, value: JobStatus) -> pb.Standing:
    """Write how a coordinator stands to a job."""
    retention = agent_pb2.Policy.Retention.Value(f"RETENTION_{value.retention}")
    return pb.Standing(job_id=job_id, execution_id=value.execution_id, retention=retention)
