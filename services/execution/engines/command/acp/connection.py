"""Requests and answers by JSON-RPC, a line each, on the standard input of a program; its output is read elsewhere."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.execution.engines.command.readers.shapes import Json, an_object, as_text, text

METHOD_NOT_FOUND: Final = -32601
_RETRY_S: Final = 0.01
_SHOWN: Final = 500
_MOST_UNREAD: Final = 8 << 20
"""In bytes: an agent that has so much to read is answered nothing more that it asks, until it has read it."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A request that has no answer yet."""

    then: Callable[[Json], object]
    failed: Callable[[str], object]
    method: str
    within_s: float
    until: float


class Connection:
    """Both ends of the program's standard input: `program_end` is the program's, and ours is never waited for."""

    def __init__(self) -> None:
        self.program_end, self._fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._unsent = bytearray()
        self._requests: dict[int, _Open] = {}
        self._last_id = 0
        self._retry_at = math.inf
        self._is_open = True

    def request(
        self,
        method: str,
        params: Mapping[str, Any],
        then: Callable[[Json], object],
        failed: Callable[[str], object],
        within_s: float = math.inf,
    ) -> None:
        """Ask the agent. Either `then` is called with its result, or `failed` with why there is none, for people."""
        self._last_id += 1
        self._requests[self._last_id] = _Open(then, failed, method, within_s, time.monotonic() + within_s)
        self._send({"id": self._last_id, "method": method, "params": params})

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Tell the agent something."""
        self._send({"method": method, "params": params})

    def answer(self, request_id: object, result: Mapping[str, Any]) -> None:
        """Answer what the agent has asked."""
        self._reply({"id": request_id, "result": result})

    def refuse(self, request_id: object, method: str) -> None:
        """Answer what the agent has asked for although it was told that there is no such thing."""
        error = {"code": METHOD_NOT_FOUND, "message": f"Method not found: {method[:_SHOWN]}"}
        self._reply({"id": request_id, "error": error})

    def take_answer(self, message: Json) -> None:
        """Take an answer of the agent's. One to no open request is nobody's."""
        number = message.get("id")
        request = self._requests.pop(number, None) if isinstance(number, int) else None
        if request is None:
            return
        if "error" in message:
            request.failed(f"{request.method} failed: {_words_of(message['error'])}")
        else:
            request.then(an_object(message.get("result")))

    def due(self) -> float:
        """When to call `push`, on the monotonic clock."""
        return min(self._retry_at, *(request.until for request in self._requests.values()), math.inf)

    def push(self) -> None:
        """Write what the program has room for, and give up the requests whose time is over."""
        self._write()
        now = time.monotonic()
        for number in [number for number, request in self._requests.items() if now >= request.until]:
            request = self._requests.pop(number)
            request.failed(f"{request.method} was not answered within {request.within_s:g} s")

    def close_program_end(self) -> None:
        """Let go of the end that the program has by now."""
        if self.program_end >= 0:
            os.close(self.program_end)
            self.program_end = -1

    def close(self) -> None:
        """End the program's standard input, by which agents know that nobody needs them any more."""
        self.close_program_end()
        if self._is_open:
            self._is_open = False
            self._retry_at = math.inf
            os.close(self._fd)

    def _reply(self, message: Mapping[str, Any]) -> None:
        if len(self._unsent) < _MOST_UNREAD:
            self._send(message)

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._is_open:
            return
        self._unsent += json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        if not self._is_open:
            return
        try:
            while self._unsent:
                del self._unsent[: os.write(self._fd, self._unsent)]
        except BlockingIOError:
            self._retry_at = time.monotonic() + _RETRY_S
            return
        except BrokenPipeError:  # it has ended, or will hear nothing more: its end says what that means
            self._unsent.clear()
        self._retry_at = math.inf


def _words_of(error: object) -> str:
    """Return what an error says, with what agents put beside the message."""
    fields = an_object(error)
    said = text(fields.get("message")) or as_text(error)
    if (data := fields.get("data")) not in (None, "", {}):
        details = an_object(data).get("details") or an_object(data).get("message") or data
        said = f"{said}: {as_text(details)}"
    return said[:_SHOWN]
