"""A gateway whose every text is hostile: it answers each RPC of the contract by its descriptor."""

import contextlib
import os
import pty
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import job_pb2
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

FORGED = "FORGED verify      passed"
ACTS = "\x1b]52;c;QUJD\x07\x1b]0;title\x1b\\\x1b[2J\x1b[1;1H\x9b2J\x9d0;t\x9c\r\x08\x7f\u202e\u2066\u200b"
BREAKS = "".join(f"{line_break}{FORGED}" for line_break in "\u2028\u2029\x85\x0b\x0c\x1c\r")
PADDED = " " * 400 + FORGED
HOSTILE = f"evil{ACTS}{BREAKS}\n{FORGED}\n  {FORGED}{PADDED}"
OF_AGENT = f"own{ACTS}\n"
"""An agent's own output may have lines; it may not act on the terminal."""

_OWN_OUTPUT = {
    *(f"boatyard.execution.v1.{name}" for name in ("OutputChunk", "Text", "Thinking")),
    "boatyard.gateway.v1.ReadDiffResponse",
    "boatyard.gateway.v1.ReadArtifactResponse",
    "boatyard.gateway.v1.ReadRecordingResponse",
}
_OWN_OUTPUT_FIELDS = {"boatyard.execution.v1.Note.output"}
_DEEPEST = 6
_LEFT_OUT = {"next_page_token", "next_position", "next_sequence"}


def hostile(kind: type[Message], depth: int = 0) -> Any:
    """Return a message that has hostile text in every field that takes text."""
    message, own = kind(), kind.DESCRIPTOR.full_name in _OWN_OUTPUT
    for field in kind.DESCRIPTOR.fields:
        if field.name in _LEFT_OUT or depth > _DEEPEST:
            continue
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name) and not field.has_default_value:
            continue
        value = _value(field, depth, OF_AGENT if own or field.full_name in _OWN_OUTPUT_FIELDS else HOSTILE)
        if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), field, depth)
        elif field.is_repeated:
            getattr(message, field.name).extend([value, value])
        elif field.message_type:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


def _fill_map(mapping: Any, field: Any, depth: int) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    if value.message_type:
        mapping[HOSTILE].CopyFrom(_value(value, depth, HOSTILE))
    else:
        mapping[HOSTILE] = _value(value, depth, HOSTILE)
    assert key.type == key.TYPE_STRING


def _value(field: Any, depth: int, text: str) -> Any:
    if field.message_type and field.message_type.GetOptions().map_entry:
        return None
    if field.message_type:
        return hostile(GetMessageClass(field.message_type), depth + 1)
    if field.enum_type:
        return job_pb2.Job.STATE_FAILED if field.name == "state" and "Job" in field.full_name else 1
    if field.type == field.TYPE_STRING:
        return text
    if field.type == field.TYPE_BYTES:
        return text.encode()
    return field.type == field.TYPE_BOOL or 1


def _answers(method: Any) -> Iterator[Message]:
    kind = GetMessageClass(method.output_type)
    if method.name != "WatchExecution":
        yield hostile(kind)
        return
    answer = kind()
    for number, case in enumerate(event_pb2.Event.DESCRIPTOR.oneofs_by_name["kind"].fields):
        event = answer.events.add(sequence=number + 1)
        getattr(event, case.name).CopyFrom(hostile(GetMessageClass(case.message_type)))
    answer.next_sequence = len(answer.events) + 1
    answer.end.SetInParent()
    yield answer


class _Gateway(grpc.GenericRpcHandler):
    def __init__(self, *, refuses: bool) -> None:
        self._refuses = refuses

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, name = details.method.lstrip("/").split("/")
        method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]

        def stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            if self._refuses:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, HOSTILE)
            yield from (answer.SerializeToString() for answer in _answers(method))

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            return next(stream(request, context))

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


@contextlib.contextmanager
def hostile_gateway(*, refuses: bool = False) -> Iterator[str]:
    """Serve inside; yields the address. With `refuses` each call fails, with a hostile message."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((_Gateway(refuses=refuses),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def terminal(columns: int = 100) -> Iterator[list[bytes]]:
    """Make standard output and standard error of this process a terminal inside; yields what it is sent."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    termios.tcsetwinsize(theirs, (50, columns))
    shown: list[bytes] = []
    before = sys.stdout, sys.stderr
    descriptors = {number: os.dup(number) for number in (1, 2)}

    def read() -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 1 << 16):
                shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    for number in descriptors:
        os.dup2(theirs, number)
    os.close(theirs)
    try:
        yield shown
    finally:
        sys.stdout, sys.stderr = before
        for number, kept in descriptors.items():
            os.dup2(kept, number)
            os.close(kept)
        reader.join()
        os.close(ours)
