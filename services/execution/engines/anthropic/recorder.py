"""Writes what a model says and does to the event log, as it happens."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from services.execution.engines.anthropic.history import Reply, ToolCall
from services.execution.eventlog import EventKind, EventWriter
from services.execution.eventlog.activity import ModelActivity
from services.execution.inbox.messages import PermissionAnswer, PermissionRequest
from services.redaction.strand import TextFlow

_MAX_CHARACTERS = 16 * 1024  # of at most four bytes each, and an event has at most 64 KiB
_FLUSH_AT = 2048
_FLUSH_AFTER_S = 0.1
_MAX_NOTE = 1000
_PUSH_S = 0.5


class Recorder:
    """Collects pieces of text for a tenth of a second, and writes everything else at once."""

    def __init__(self, writer: EventWriter, activity: ModelActivity) -> None:
        self._writer = writer
        self.activity = activity
        self._flow = TextFlow(writer.redactor)
        self._kind = EventKind.TEXT
        self._request_id = ""
        self._text = ""
        self._flush_timer: asyncio.TimerHandle | None = None

    async def room(self) -> None:
        """Wait until the log has room for what was written: meanwhile nothing more should happen that it must have."""
        while not self._writer.push():  # noqa: ASYNC110 - another program's files take the room
            await asyncio.sleep(_PUSH_S)

    def piece(self, kind: EventKind, text: str, request_id: str) -> None:
        """Add a piece of text or thinking."""
        if (kind, request_id) != (self._kind, self._request_id):
            self.end_text()
        self._kind, self._request_id = kind, request_id
        self._text += text
        if len(self._text) >= _FLUSH_AT:
            self.flush()
        elif self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self.flush)

    def flush(self, *, last: bool = False) -> None:
        """Write the collected text, except for what may be the beginning of a secret."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        text, self._text = self._flow.take(self._text, last=last), ""
        for start in range(0, len(text), _MAX_CHARACTERS):
            part = text[start : start + _MAX_CHARACTERS]
            self._write(self._kind, text=part, request_id=self._request_id)

    def end_text(self) -> None:
        """Write the rest of a text, because nothing follows."""
        self.flush(last=True)
        self._flow = TextFlow(self._writer.redactor)

    def note(self, text: str, step: str = "") -> None:
        """Write a note for people."""
        self._write(EventKind.NOTE, text=self._writer.redactor.text(text)[:_MAX_NOTE], step=step)

    def reply(self, reply: Reply, turn: int) -> None:
        """Write that an answer is complete, unless that was written before: what it used, its door says."""
        if reply.id not in self.activity.turn_ends:
            self._write(EventKind.TURN_END, turn=turn, stop_reason=reply.stop_reason, request_id=reply.id)

    def usage(self, fields: Mapping[str, Any]) -> str:
        """Write what the door says that a request has used, unless that was written before; return the request's id.

        One that its provider has not named gets a name that no other has, also of those before this runner.
        """
        request_id = str(fields["request_id"]) or f"request#{len(self.activity.counted) + 1}"
        if request_id not in self.activity.counted:
            self._write(EventKind.USAGE, **{**fields, "request_id": request_id})
        return request_id

    def call(self, call: ToolCall) -> None:
        """Write that a tool is called."""
        self._write(EventKind.TOOL_CALL, tool_call_id=call.call_id, tool=call.tool, input=self._input(call))

    def delivered(self, message_id: str, text: str) -> None:
        """Write that a message was delivered to the model, unless that was written before."""
        if message_id not in self.activity.delivered:
            self._write(EventKind.MESSAGE_DELIVERED, message_id=message_id, text=self._cut(text))

    def permission_request(self, call: ToolCall) -> PermissionRequest:
        """Return the permission request for a call: the one that was asked before, or a new one."""
        permission_id = self.activity.asked.get(call.call_id, f"p{len(self.activity.asked) + 1}")
        return PermissionRequest(permission_id, call.tool, self._input(call), call.call_id)

    def asked(self, request: PermissionRequest) -> None:
        """Write a permission request, unless that was written before."""
        if request.tool_call_id not in self.activity.asked:
            self._write(EventKind.PERMISSION_REQUEST, **asdict(request))

    def answered(self, permission_id: str, answer: PermissionAnswer) -> None:
        """Write the answer to a permission request, unless that was written before."""
        if permission_id not in self.activity.answered:
            self._write(EventKind.PERMISSION_ANSWER, permission_id=permission_id, **asdict(answer))

    def result(self, call_id: str, output: str, *, is_error: bool) -> None:
        """Write the result of a tool call, unless that was written before."""
        if call_id not in self.activity.results:
            self._write(EventKind.TOOL_RESULT, tool_call_id=call_id, output=self._cut(output), is_error=is_error)

    def _input(self, call: ToolCall) -> str:
        return self._cut(json.dumps(self._writer.redactor.value(dict(call.arguments)), ensure_ascii=False))

    def _cut(self, text: str) -> str:
        return self._writer.redactor.text(text).encode("utf-8", "replace")[: 64 * 1024].decode(errors="ignore")

    def _write(self, kind: EventKind, **fields: object) -> None:
        if kind not in (EventKind.TEXT, EventKind.THINKING):
            self.end_text()
        self._writer.fields(kind, **fields)
        self.activity.take(kind, fields, time.time_ns())
