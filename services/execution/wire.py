"""Between the contract's messages and this service's own words. Checks everything that a request can get wrong."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from boatyard.execution.v1 import event_pb2, sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.common.ids import ID_RULE, is_id
from services.execution.attaching import Taken
from services.execution.capabilities import Capability
from services.execution.eventlog import Kind
from services.execution.keyboard import Typed
from services.execution.model import Execution, Filter, State
from services.execution.talk import Answer, Message, Question
from services.sandbox.spec import Tier

Violations = list[tuple[str, str]]

TIERS = {tier: sandbox_pb2.SandboxTier.Value(f"SANDBOX_TIER_{tier.name}") for tier in Tier}

_MESSAGE_BYTES = 64 * 1024
_INPUT_BYTES = 64 * 1024
_MAX_SIDE = 1000
_REASON_BYTES = 4096
_NAME_BYTES = 255
_MAX_GRACE_S = 300.0
_DEFAULT_GRACE_S = 5.0
_MAX_WAIT_S = 86400.0

_STATES = {state: pb.Execution.State.Value(f"STATE_{state}") for state in State}
_STATES_BACK = {number: state for state, number in _STATES.items()}
_KINDS = {event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}"): kind for kind in Kind}


def execution_id(value: str) -> str:
    """Read a required id. Raises Invalid."""
    refuse(id_violations("execution_id", value))
    return value


def wanted(request: pb.ListExecutionsRequest) -> tuple[Filter, Page]:
    """Read which executions to list. Raises Invalid with all violations."""
    violations = id_violations("job_id", request.job_id) if request.job_id else []
    if any(number not in _STATES_BACK for number in request.states):
        violations.append(("states", "must be states of the contract, none of them UNSPECIFIED"))
    page = Page()
    try:
        filters = {"job_id": request.job_id, "states": sorted(set(request.states))}
        page = Page.parse(request.page_size, request.page_token, filters)
    except Invalid as error:
        violations += error.violations
    refuse(violations)
    return Filter(frozenset(_STATES_BACK[number] for number in request.states), request.job_id), page


def stop(request: pb.StopExecutionRequest) -> tuple[str, float]:
    """Read which execution to stop, and its grace in seconds. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    grace_s = seconds(request.grace) if request.HasField("grace") else _DEFAULT_GRACE_S
    if not 0 <= grace_s <= _MAX_GRACE_S:
        violations.append(("grace", "must be from 0 s to 300 s"))
    refuse(violations)
    return request.execution_id, grace_s


def wait(request: pb.WaitExecutionRequest, remaining_s: float | None) -> tuple[str, float]:
    """Read which execution to wait for, and how long; `remaining_s` is what the call has. Raises Invalid."""
    violations = id_violations("execution_id", request.execution_id)
    longest = 0.8 * remaining_s if remaining_s is not None else _MAX_WAIT_S
    timeout_s = seconds(request.timeout) if request.HasField("timeout") else longest
    if timeout_s < 0:
        violations.append(("timeout", "must not be negative"))
    refuse(violations)
    return request.execution_id, min(timeout_s, longest)


def watch(request: pb.WatchEventsRequest) -> tuple[str, int, frozenset[Kind]]:
    """Read which events to send: of which execution, from where, of which kinds. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    if request.from_sequence < 0:
        violations.append(("from_sequence", "must not be negative"))
    if any(number not in _KINDS for number in request.kinds):
        violations.append(("kinds", "must be kinds of the contract, none of them UNSPECIFIED"))
    refuse(violations)
    return request.execution_id, max(1, request.from_sequence), frozenset(_KINDS[number] for number in request.kinds)


def message(request: pb.SendMessageRequest) -> tuple[str, Message]:
    """Read what to tell a model. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    violations += id_violations("message_id", request.message_id)
    if not request.text.strip() or len(request.text.encode()) > _MESSAGE_BYTES:
        violations.append(("text", f"is required, of at most {_MESSAGE_BYTES} bytes"))
    refuse(violations)
    return request.execution_id, Message(request.message_id, request.text)


def resolution(request: pb.ResolvePermissionRequest) -> tuple[str, str, Answer]:
    """Read what is allowed or refused. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    violations += id_violations("permission_id", request.permission_id)
    for field, longest in (("reason", _REASON_BYTES), ("decided_by", _NAME_BYTES)):
        if len(getattr(request, field).encode()) > longest:
            violations.append((field, f"must be at most {longest} bytes"))
    refuse(violations)
    answer = Answer(request.allow, request.decided_by, request.reason)
    return request.execution_id, request.permission_id, answer


def typed(request: pb.AttachExecutionRequest) -> Typed:
    """Read what is done at a terminal. Raises Invalid."""
    match request.WhichOneof("kind"):
        case "input" if len(request.input) <= _INPUT_BYTES:
            return request.input
        case "size":
            refuse(size_violations("size", request.size))
            return request.size.rows, request.size.columns
    raise Invalid([("input", f"or size is required in every message but the first; at most {_INPUT_BYTES} bytes")])


def size_violations(field: str, size: pb.TerminalSize) -> Violations:
    """What is wrong with a window's size."""
    if 1 <= size.rows <= _MAX_SIDE and 1 <= size.columns <= _MAX_SIDE:
        return []
    return [(field, f"must be 1 to {_MAX_SIDE} rows and columns")]


def taken(value: Taken) -> pb.AttachExecutionResponse:
    """Describe what became of what was typed."""
    return pb.AttachExecutionResponse(taken_bytes=value.bytes, end=None if value.end is None else execution(value.end))


def answer(permission_id: str, value: Answer) -> event_pb2.PermissionAnswer:
    """Describe an answer."""
    return event_pb2.PermissionAnswer(permission_id=permission_id, **asdict(value))


def execution(value: Execution, pending: Sequence[Question] = ()) -> pb.Execution:
    """Describe an execution, and what it asks."""
    message = pb.Execution(
        execution_id=value.execution_id,
        purpose=pb.ExecutionSpec.Purpose.Value(f"PURPOSE_{value.purpose}"),
        job_id=value.job_id,
        state=_STATES[value.state],
        reason=value.reason,
        message=value.message,
        processes_left=value.processes_left,
        sandbox_tier=TIERS[value.sandbox_tier],
        create_time=_timestamp(value.create_time),
        start_time=_timestamp(value.start_time),
        end_time=_timestamp(value.end_time),
        last_sequence=value.last_sequence,
        output_bytes=value.output_bytes,
        events_trimmed=value.events_trimmed,
    )
    if value.exit_code is not None:
        message.exit_code = value.exit_code
    if value.signal is not None:
        message.signal = value.signal
    if value.end_verified_by is not None:
        message.end_verified_by = pb.Execution.EndVerification.Value(f"END_VERIFICATION_{value.end_verified_by}")
    if value.vitals is not None:
        message.vitals.MergeFrom(event_pb2.Vitals(**asdict(value.vitals)))
    if value.model_use is not None:
        message.model_use.MergeFrom(pb.ModelUse(**asdict(value.model_use)))
    message.pending_permissions.extend(map(question, pending))
    return message


def digest(spec: pb.ExecutionSpec) -> bytes:
    """Identify a specification: equal messages, and hardly any others, have equal digests."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).digest()


def seconds(value: Duration) -> float:
    """Read a duration."""
    return value.seconds + value.nanos / 1e9


def id_violations(field: str, value: str) -> Violations:
    """What is wrong with an id that must be there."""
    if not value:
        return [(field, "is required")]
    return [] if is_id(value) else [(field, f"must be {ID_RULE}")]


def path_violations(field: str, path: bytes) -> Violations:
    """What is wrong with an absolute path."""
    if not path.startswith(b"/"):
        return [(field, "must be an absolute path")]
    if b"\0" in path or len(path) > os.pathconf("/", "PC_PATH_MAX"):
        return [(field, "must be at most 4096 bytes, and none of them NUL")]
    return []


def refuse(violations: Violations) -> None:
    """Raise Invalid if there is anything to complain about."""
    if violations:
        raise Invalid(violations)


def question(value: Question) -> event_pb2.PermissionRequest:
    """Describe what a model asks."""
    return event_pb2.PermissionRequest(**asdict(value) | {"input": value.input.encode()})


def _timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    result = Timestamp()
    result.FromDatetime(value)
    return result


def capability(value: Capability) -> pb.Capability:
    """Write what works."""
    return pb.Capability(name=value.name, provided_by=value.provided_by, complaint=value.complaint)
