"""Convert what a driver writes to its ledger and reads from it, between messages and values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from boatyard.ledger.v1 import ledger_pb2 as pb

from services.common.errors import Invalid
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check, Violation
from services.gateway.coordinators import wire
from services.gateway.coordinators.model import HeldLease
from services.lifecycle.ledger import Stage, StageEnd
from services.lifecycle.model.budgets import GateState, ModelNeed, Settlement
from services.lifecycle.model.checkpoint import Question
from services.lifecycle.model.hook_calls import HookCall
from services.lifecycle.model.outcome import Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.value import Recorded, unpack
from services.lifecycle.orphans import JobStatus

Value = TypeVar("Value", bound=Recorded)
Asked = TypeVar("Asked", ModelNeed, Settlement)

_MAX_RETRY_SECONDS: Final = 3600
_MAX_COST_USD: Final = 1_000_000
_MAX_TOKENS: Final = 1_000_000_000
_MAX_NAME: Final = 63
_MAX_MODEL: Final = 255
_MAX_GATES: Final = 64

_STAGE: Final = Mapper(Stage, pb.RecordedStage, by_hand={"result"})
_JOB_STATUS: Final = Mapper(JobStatus, pb.JobStatus, by_hand={"job_id"})


def holder_from_proto(holder: pb.Holder) -> HeldLease:
    """Read the lease under which a call is made."""
    return wire.held_lease_from_proto(holder.coordinator_id, holder.lease)


def check_stage(message: pb.RecordedStage) -> Iterator[Violation]:
    """Yield what is wrong with the result of a stage."""
    if not message.result.isascii():
        yield "result", "must be ASCII"


CHECKS: Final[Mapping[str, Check]] = {pb.RecordedStage.DESCRIPTOR.full_name: check_stage}
"""Rules for messages as a whole, by their full names."""


def stage_to_proto(stage: Stage) -> pb.RecordedStage:
    """Write a stage."""
    return _STAGE.to_proto(stage, result=stage.result.encode())


def stage_end_from_proto(request: pb.EndStageRequest) -> StageEnd:
    """Read how a stage ended, and the executions to record with it. Raises Invalid."""
    message = request.stage.message.replace("\0", "�")
    stage = _STAGE.from_proto(request.stage, result=request.stage.result.decode("ascii"), message=message)
    notes = [_unpacked(f"notes[{number}]", ExecutionNote, note) for number, note in enumerate(request.notes)]
    return StageEnd(stage, notes)


def note_from_proto(request: pb.NoteExecutionRequest) -> ExecutionNote:
    """Read the current state of an execution. Raises Invalid."""
    return _unpacked("note", ExecutionNote, request.note)


def need_from_proto(request: pb.ReserveModelUseRequest) -> ModelNeed:
    """Read what a request to a model may need. Raises Invalid."""
    need = _countable("need", _unpacked("need", ModelNeed, request.need))
    _check_gates("need", need.ways)
    return need


def use_from_proto(request: pb.SettleModelUseRequest) -> Settlement:
    """Read what a request to a model has used, of which providers may say anything: at most what can be counted.

    Raises Invalid.
    """
    use = _unpacked("use", Settlement, request.use)
    tokens = None if use.tokens is None else min(use.tokens, _MAX_TOKENS)
    cost_usd = None if use.cost_usd is None else min(use.cost_usd, _MAX_COST_USD)
    use = _countable("use", replace(use, tokens=tokens, cost_usd=cost_usd))
    _check_gates("use", use.closed)
    return use


def _check_gates(field: str, gates: Sequence[GateState]) -> None:
    """Raises Invalid for gates that cannot be kept."""
    if len(gates) > _MAX_GATES:
        raise Invalid([(field, f"must have at most {_MAX_GATES} gates")])
    for gate in gates:
        names_fit = len(gate.provider) <= _MAX_NAME and len(gate.model) <= _MAX_MODEL and "\0" not in gate.model
        if not (names_fit and 0 <= gate.key <= _MAX_GATES and gate.seconds >= 0):
            raise Invalid([(field, "must have gates of names and keys that exist")])


def _countable(field: str, value: Asked) -> Asked:
    """Return a need or a use that books can have. Raises Invalid."""
    is_countable = 0 <= (value.tokens or 0) <= _MAX_TOKENS and 0 <= (value.cost_usd or 0) <= _MAX_COST_USD
    if not (is_countable and 0 < len(value.ask_id) <= _MAX_NAME):
        raise Invalid([(field, f"must be of an ask, with at most {_MAX_TOKENS} tokens and ${_MAX_COST_USD}")])
    return value


def hook_call_from_proto(request: pb.RecordHookCallRequest) -> HookCall:
    """Read the record of a hook's call. Raises Invalid."""
    return _unpacked("call", HookCall, request.call)


def question_from_proto(request: pb.ParkJobRequest) -> Question:
    """Read the question to a person. Raises Invalid."""
    return _unpacked("question", Question, request.question)


def retry_from_proto(request: pb.RetryLaterRequest) -> Retry:
    """Read when and why a job is tried again. Raises Invalid."""
    retry = _unpacked("retry", Retry, request.retry)
    if not 0 <= retry.seconds <= _MAX_RETRY_SECONDS:
        raise Invalid([("retry", f"must wait for at most {_MAX_RETRY_SECONDS} s")])
    if retry.outage is not None and len(retry.outage.provider) > _MAX_NAME:
        raise Invalid([("retry", f"must name a provider of at most {_MAX_NAME} characters")])
    return retry


def outcome_from_proto(request: pb.FinishJobRequest) -> Outcome:
    """Read the outcome of a job. Raises Invalid."""
    outcome = _unpacked("outcome", Outcome, request.outcome)
    if not outcome.state.is_final:
        raise Invalid([("outcome", "must be final")])
    return outcome


def expected_outcome_from_proto(request: pb.ReadDocumentRequest) -> Outcome | None:
    """Read for which outcome a document is requested, if for any. Raises Invalid."""
    return _unpacked("outcome", Outcome, request.outcome) if request.outcome else None


def job_status_to_proto(job_id: str, value: JobStatus) -> pb.JobStatus:
    """Write the status of a job on a coordinator."""
    return _JOB_STATUS.to_proto(value, job_id=job_id)


def _unpacked(field: str, kind: type[Value], data: bytes) -> Value:
    """Read a value that the driver has packed. Raises Invalid."""
    try:
        return unpack(kind, data)
    except ValueError:
        raise Invalid([(field, f"must be {kind.__name__}, as a driver of this version packs it")]) from None
