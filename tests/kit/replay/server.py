"""The HTTP side: POST /v1/messages, answered as a stream of server-sent events, whole or with a fault."""

import json
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kit.replay.conversation import Conversations, RefusalError, Turn
from tests.kit.replay.script import Fault

Event = Mapping[str, Any]

_PIECE = 24
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_MAX_REQUEST = 64 << 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for 0 s: the peer gets a reset, no end


class ReplayServer(ThreadingHTTPServer):
    """Serves conversations at a loopback port; `key`, if given, is the only one accepted."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, conversations: Conversations, key: str, report: Callable[[Event], None]) -> None:
        """`report` is called for every request, from many threads, but one at a time."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.conversations = conversations
        self.key = key
        self._report = report
        self._reporting = threading.Lock()

    def report(self, request: Event) -> None:
        """Report a request."""
        with self._reporting:
            self._report(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: clients may disconnect in the middle."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ReplayServer

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(min(size, _MAX_REQUEST))
        began = time.time()
        try:
            turn = self._turn(body)
        except RefusalError as refusal:
            self.server.report({"time": began, "status": refusal.status, "message": str(refusal)})
            self._refuse(refusal.status, refusal.kind, str(refusal))
            return
        message_id = f"msg_{uuid.uuid4().hex[:24]}"
        fault = turn.fault
        self.server.report(
            {
                "time": began,
                "reply": turn.number,
                "attempt": turn.attempt,
                "fault": fault.kind if fault else None,
                "message_id": message_id,
            }
        )
        if fault is None or not self._fails_at_once(fault):
            self._stream(turn, message_id, json.loads(body)["model"])

    def _turn(self, body: bytes) -> Turn:
        if self.path.partition("?")[0] != "/v1/messages":
            raise RefusalError(404, "not_found_error", f"there is nothing at {self.path}")
        # The API accepts either header; which one a client sends depends on its version.
        key = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
        if not key or (self.server.key and key != self.server.key):
            raise RefusalError(401, "authentication_error", f"invalid API key: {key or 'none'}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise RefusalError(400, "invalid_request_error", f"the request is not JSON: {error}") from error
        return self.server.conversations.turn(request)

    def _fails_at_once(self, fault: Fault) -> bool:
        if fault.kind == "refused":
            self._reset()
            return True
        if fault.kind.isdigit():
            status = int(fault.kind)
            kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
            self._refuse(status, kind, f"a fault of the script: {status}", fault.seconds)
            return True
        return False

    def _refuse(self, status: int, kind: str, message: str, retry_after: float | None = None) -> None:
        body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        self.send_response(status, "Overloaded" if status == 529 else None)  # which http.HTTPStatus does not know
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if retry_after is not None:
            self.send_header("retry-after", f"{retry_after:g}")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, turn: Turn, message_id: str, model: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("cache-control", "no-cache")
        self.send_header("request-id", f"req_{message_id}")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events = list(_events(turn, message_id, model))
        middle = max(2, len(events) // 2)
        for number, event in enumerate(events):
            if turn.fault is not None and number == middle and self._breaks(turn.fault):
                return
            self._send(event)
            if turn.script.pace and event["type"] == "content_block_delta":
                time.sleep(turn.script.pace)
        self._chunk(b"")

    def _breaks(self, fault: Fault) -> bool:
        if fault.kind == "silence":
            time.sleep(fault.seconds or 0)
            return False
        if fault.kind == "error":
            self._send({"type": "error", "error": {"type": "overloaded_error", "message": "a fault of the script"}})
        if fault.kind == "cut":
            self._reset()
        else:
            self._chunk(b"")
        return True

    def _send(self, event: Event) -> None:
        self._chunk(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode()))

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in http.server
        """Nothing: `report` has it."""


def _events(turn: Turn, message_id: str, model: str) -> Iterator[Event]:
    usage = turn.reply.usage
    message: dict[str, Any] = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1},
    }
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}
    for index, block in enumerate(turn.reply.blocks):
        start, deltas = _block(block, turn, index)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": turn.reply.stop, "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def _block(block: Mapping[str, Any], turn: Turn, index: int) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    if block["type"] == "text":
        pieces = _pieces(block["text"])
        return {"type": "text", "text": ""}, ({"type": "text_delta", "text": piece} for piece in pieces)
    if block["type"] == "thinking":
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
        signed = [*thoughts, {"type": "signature_delta", "signature": f"replay-{turn.number}-{index}"}]
        return {"type": "thinking", "thinking": "", "signature": ""}, iter(signed)
    # The same in every try, so that a request that repeats it is the same request.
    start = {"type": "tool_use", "id": f"toolu_{turn.number:04}_{index:02}", "name": block["name"], "input": {}}
    pieces = _pieces(json.dumps(block["input"]))
    return start, ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
