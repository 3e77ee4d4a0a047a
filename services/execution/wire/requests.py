"""Reads the contract's requests into the service's own types, except what to start: see `start`."""

import hashlib

from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.execution.eventlog import EventKind
from services.execution.inbox.messages import Message, PermissionAnswer
from services.execution.inbox.terminal_input import TerminalEvent
from services.execution.model import Filter, State
from services.execution.validation import id_violations, refuse, size_violations

_MESSAGE_BYTES = 64 * 1024
_INPUT_BYTES = 64 * 1024
_REASON_BYTES = 4096
_NAME_BYTES = 255
_MAX_GRACE_S = 300.0
_DEFAULT_GRACE_S = 5.0
_MAX_WAIT_S = 86400.0

_STATES = {pb.NodeExecution.State.Value(f"STATE_{state}"): state for state in State}
_KINDS = {event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}"): kind for kind in EventKind}


def execution_id(value: str) -> str:
    """Read a required id. Raises Invalid."""
    refuse(id_violations("execution_id", value))
    return value


def list_from_proto(request: pb.ListExecutionsRequest) -> tuple[Filter, Page]:
    """Read which executions to list. Raises Invalid with all violations."""
    violations = id_violations("job_id", request.job_id) if request.job_id else []
    if any(number not in _STATES for number in request.states):
        violations.append(("states", "must be states of the contract, none of them UNSPECIFIED"))
    page = Page()
    try:
        filters = {"job_id": request.job_id, "states": sorted(set(request.states))}
        page = Page.parse(request.page_size, request.page_token, filters)
    except Invalid as error:
        violations += error.violations
    refuse(violations)
    return Filter(frozenset(_STATES[number] for number in request.states), request.job_id), page


def stop_from_proto(request: pb.StopExecutionRequest) -> tuple[str, float]:
    """Read which execution to stop, and its grace in seconds. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    grace_s = seconds_from_proto(request.grace) if request.HasField("grace") else _DEFAULT_GRACE_S
    if not 0 <= grace_s <= _MAX_GRACE_S:
        violations.append(("grace", "must be from 0 s to 300 s"))
    refuse(violations)
    return request.execution_id, grace_s


def wait_from_proto(request: pb.WaitExecutionRequest, remaining_s: float | None) -> tuple[str, float]:
    """Read which execution to wait for, and how long; `remaining_s` is the time that the call has. Raises Invalid."""
    violations = id_violations("execution_id", request.execution_id)
    longest = 0.8 * remaining_s if remaining_s is not None else _MAX_WAIT_S
    timeout_s = seconds_from_proto(request.timeout) if request.HasField("timeout") else longest
    if timeout_s < 0:
        violations.append(("timeout", "must not be negative"))
    refuse(violations)
    return request.execution_id, min(timeout_s, longest)


def watch_from_proto(request: pb.WatchEventsRequest) -> tuple[str, int, frozenset[EventKind]]:
    """Read which events to send: execution, first sequence, kinds. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    if request.from_sequence < 0:
        violations.append(("from_sequence", "must not be negative"))
    if any(number not in _KINDS for number in request.kinds):
        violations.append(("kinds", "must be kinds of the contract, none of them UNSPECIFIED"))
    refuse(violations)
    return request.execution_id, max(1, request.from_sequence), frozenset(_KINDS[number] for number in request.kinds)


def message_from_proto(request: pb.SendMessageRequest) -> tuple[str, Message]:
    """Read a message for an agent. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    violations += id_violations("message_id", request.message_id)
    if not request.text.strip() or len(request.text.encode()) > _MESSAGE_BYTES:
        violations.append(("text", f"is required, and must be at most {_MESSAGE_BYTES} bytes"))
    refuse(violations)
    return request.execution_id, Message(request.message_id, request.text)


def answer_from_proto(request: pb.ResolvePermissionRequest) -> tuple[str, str, PermissionAnswer]:
    """Read what somebody allows or refuses. Raises Invalid with all violations."""
    violations = id_violations("execution_id", request.execution_id)
    violations += id_violations("permission_id", request.permission_id)
    for field, longest in (("reason", _REASON_BYTES), ("decided_by", _NAME_BYTES)):
        if len(getattr(request, field).encode()) > longest:
            violations.append((field, f"must be at most {longest} bytes"))
    refuse(violations)
    answer = PermissionAnswer(request.allow, request.decided_by, request.reason)
    return request.execution_id, request.permission_id, answer


def terminal_event_from_proto(request: pb.AttachExecutionRequest) -> TerminalEvent:
    """Read what a caller does at a terminal. Raises Invalid."""
    match request.WhichOneof("kind"):
        case "input" if len(request.input) <= _INPUT_BYTES:
            return request.input
        case "size":
            refuse(size_violations("size", request.size.rows, request.size.columns))
            return request.size.rows, request.size.columns
    raise Invalid([("input", f"of at most {_INPUT_BYTES} bytes, or size, is required in every message but the first")])


def digest(spec: pb.ExecutionSpec) -> bytes:
    """Return a digest that identifies a specification: equal messages, and hardly any others, have equal ones."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).digest()


def seconds_from_proto(value: Duration) -> float:
    """Convert a duration to seconds."""
    return value.seconds + value.nanos / 1e9
