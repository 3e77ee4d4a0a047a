"""Reads the contract's requests into the service's own types, except what to start: see `start`."""

import hashlib

from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.asks import ReservationAnswer
from services.agent.wire import RESERVATION_ANSWER
from services.common.db.paging import Page
from services.common.errors import Invalid
from services.common.rpc.secrecy import without_secrets
from services.common.rpc.times import seconds_from_proto
from services.execution.eventlog import EventKind
from services.execution.inbox.messages import Message, PermissionAnswer
from services.execution.inbox.terminal_input import TerminalEvent
from services.execution.model import Filter, State

_DEFAULT_GRACE_S = 5.0
_MAX_WAIT_S = 86400.0

_STATES = {pb.NodeExecution.State.Value(f"STATE_{state}"): state for state in State}
_KINDS = {event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}"): kind for kind in EventKind}


def list_from_proto(request: pb.ListExecutionsRequest) -> tuple[Filter, Page]:
    """Read which executions to list. Raises Invalid when the page's token is not for them."""
    filters = {"job_id": request.job_id, "states": sorted(set(request.states))}
    page = Page.parse(request.page_size, request.page_token, filters)
    return Filter(frozenset(_STATES[number] for number in request.states), request.job_id), page


def stop_from_proto(request: pb.StopExecutionRequest) -> tuple[str, float]:
    """Read which execution to stop, and its grace in seconds."""
    grace_s = seconds_from_proto(request.grace) if request.HasField("grace") else _DEFAULT_GRACE_S
    return request.execution_id, grace_s


def wait_from_proto(request: pb.WaitExecutionRequest, remaining_s: float | None) -> tuple[str, float]:
    """Read which execution to wait for, and how long; `remaining_s` is the time that the call has."""
    longest = 0.8 * remaining_s if remaining_s is not None else _MAX_WAIT_S
    timeout_s = seconds_from_proto(request.timeout) if request.HasField("timeout") else longest
    return request.execution_id, min(timeout_s, longest)


def watch_from_proto(request: pb.WatchEventsRequest) -> tuple[str, int, frozenset[EventKind]]:
    """Read which events to send: execution, first sequence, kinds."""
    return request.execution_id, max(1, request.from_sequence), frozenset(_KINDS[number] for number in request.kinds)


def message_from_proto(request: pb.SendMessageRequest) -> tuple[str, Message]:
    """Read a message for an agent."""
    return request.execution_id, Message(request.message_id, request.text)


def answer_from_proto(request: pb.ResolvePermissionRequest) -> tuple[str, str, PermissionAnswer]:
    """Read what somebody allows or refuses."""
    answer = PermissionAnswer(request.allow, request.decided_by, request.reason)
    return request.execution_id, request.permission_id, answer


def ask_answer_from_proto(request: pb.AnswerRequest) -> tuple[str, str, ReservationAnswer]:
    """Read the answer to what an execution asks."""
    return request.execution_id, request.ask_id, RESERVATION_ANSWER.from_proto(request.answer.reservation)


def attached_from_proto(first: pb.AttachExecutionRequest) -> str:
    """Read from the first message which execution to attach to. Raises Invalid."""
    if not first.execution_id:
        raise Invalid([("execution_id", "is required in the first message")])
    return first.execution_id


def terminal_event_from_proto(request: pb.AttachExecutionRequest) -> TerminalEvent:
    """Read what a caller does at a terminal. Raises Invalid."""
    match request.WhichOneof("kind"):
        case "input":
            return request.input
        case "size":
            return request.size.rows, request.size.columns
    raise Invalid([("execution_id", "must be in the first message only")])


def digest(spec: pb.ExecutionSpec) -> bytes:
    """Return a digest that identifies a specification: equal messages, and hardly any others, have equal ones.

    Secrets count by their names: of a short value the digest could be guessed. Providers of models do not count,
    nor does it whether their use is reserved or asked for.
    """
    open_to_all = pb.ExecutionSpec()
    open_to_all.CopyFrom(without_secrets(spec))
    open_to_all.ClearField("providers")
    open_to_all.ClearField("reserves_model_use")
    open_to_all.ClearField("heeds_model_gates")
    return hashlib.sha256(open_to_all.SerializeToString(deterministic=True)).digest()
