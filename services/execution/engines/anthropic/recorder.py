"""Writes what a model says and does into the event log, as it happens."""

import asyncio
import json
from dataclasses import asdict

from services.execution.engines.anthropic.history import Call, Reply
from services.execution.engines.anthropic.models import Models
from services.execution.eventlog import EventWriter, Kind
from services.execution.eventlog.activity import Tally
from services.execution.inbox.messages import Answer, Question
from services.execution.redaction.strand import TextFlow

_MAX_CHARACTERS = 16 * 1024  # of at most four bytes each, and an event has at most 64 KiB
_FLUSH_AT = 2048
_FLUSH_AFTER_S = 0.1
_MAX_NOTE = 1000


class Recorder:
    """Collects pieces of text for a tenth of a second, and writes all else at once."""

    def __init__(self, writer: EventWriter, tally: Tally, models: Models) -> None:
        self._writer = writer
        self.tally = tally
        self._models = models
        self._flow = TextFlow(writer.redactor)
        self._kind = Kind.TEXT
        self._request_id = ""
        self._text = ""
        self._due: asyncio.TimerHandle | None = None

    def piece(self, kind: Kind, text: str, request_id: str) -> None:
        """Take a piece of text or thinking."""
        if (kind, request_id) != (self._kind, self._request_id):
            self.end_text()
        self._kind, self._request_id = kind, request_id
        self._text += text
        if len(self._text) >= _FLUSH_AT:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self.flush)

    def flush(self, *, last: bool = False) -> None:
        """Write what was collected, but for what may be the beginning of a secret."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        text, self._text = self._flow.take(self._text, last=last), ""
        for start in range(0, len(text), _MAX_CHARACTERS):
            part = text[start : start + _MAX_CHARACTERS]
            self._write(self._kind, text=part, request_id=self._request_id)

    def end_text(self) -> None:
        """Write all of a text, for nothing follows."""
        self.flush(last=True)
        self._flow = TextFlow(self._writer.redactor)

    def note(self, text: str, step: str = "") -> None:
        """Write a line for people."""
        self._write(Kind.NOTE, text=self._writer.redactor.text(text)[:_MAX_NOTE], step=step)

    def reply(self, reply: Reply, turn: int) -> None:
        """Write what an answer used, and that it is whole, unless that was written before."""
        tokens = reply.tokens
        cost = self._models.cost_usd(reply.model, tokens)
        if reply.id not in self.tally.requests:
            self._write(
                Kind.USAGE,
                request_id=reply.id,
                model=reply.model,
                input_tokens=tokens.input,
                output_tokens=tokens.output,
                cache_read_tokens=tokens.cache_read,
                cache_write_tokens=tokens.cache_write,
                **({} if cost is None else {"cost_usd": cost}),
            )
        if reply.id not in self.tally.turns_told:
            self._write(Kind.TURN_END, turn=turn, stop_reason=reply.stop_reason, request_id=reply.id)

    def call(self, call: Call) -> None:
        """Write that a tool is called."""
        self._write(Kind.TOOL_CALL, tool_call_id=call.call_id, tool=call.tool, input=self._input(call))

    def delivered(self, message_id: str, text: str) -> None:
        """Write that the model was told a message, unless that was written before."""
        if message_id not in self.tally.delivered:
            self._write(Kind.MESSAGE_DELIVERED, message_id=message_id, text=self._cut(text))

    def question(self, call: Call) -> Question:
        """The question whether a call may be made: the one that was asked, or the next."""
        permission_id = self.tally.asked.get(call.call_id, f"p{len(self.tally.asked) + 1}")
        return Question(permission_id, call.tool, self._input(call), call.call_id)

    def asked(self, question: Question) -> None:
        """Write what is asked, unless that was written before."""
        if question.tool_call_id not in self.tally.asked:
            self._write(Kind.PERMISSION_REQUEST, **asdict(question))

    def answered(self, permission_id: str, answer: Answer) -> None:
        """Write what was answered, unless that was written before."""
        if permission_id not in self.tally.answered:
            self._write(Kind.PERMISSION_ANSWER, permission_id=permission_id, **asdict(answer))

    def result(self, call_id: str, output: str, *, is_error: bool) -> None:
        """Write what a tool answered, unless that was written before."""
        if call_id not in self.tally.results:
            self._write(Kind.TOOL_RESULT, tool_call_id=call_id, output=self._cut(output), is_error=is_error)

    def _input(self, call: Call) -> str:
        return self._cut(json.dumps(self._writer.redactor.value(dict(call.given)), ensure_ascii=False))

    def _cut(self, text: str) -> str:
        return self._writer.redactor.text(text).encode("utf-8", "replace")[: 64 * 1024].decode(errors="ignore")

    def _write(self, kind: Kind, **fields: object) -> None:
        if kind not in (Kind.TEXT, Kind.THINKING):
            self.end_text()
        self._writer.fields(kind, **fields)
        self.tally.take(kind, fields)
