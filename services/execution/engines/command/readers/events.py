"""Writes what an agent says and does to the event log, in the form that it has for every engine, and counts it."""

import re
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Final

from services.common.text import without_halves
from services.execution.engines.command.readers.shapes import MOST, as_text
from services.execution.eventlog import EventKind, EventWriter
from services.execution.inbox.messages import PermissionAnswer, PermissionRequest
from services.execution.model import ModelUse, Reason

_MAX_CHARACTERS: Final = 16 * 1024  # of at most four bytes each, and an event has at most 64 KiB
_MAX_BYTES: Final = 64 * 1024
_MAX_NAME: Final = 200
_MAX_NOTE: Final = 1000
_LAST_WORDS_BYTES: Final = 2048
_NAMED: Final = 5
_MOST_IDS: Final = 4096
_SESSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an agent that has ended has not done its work; `text` follows a colon."""

    text: str
    reason: Reason = Reason.AGENT_FAILED


class _Recent:
    """The ids that were seen last. An agent can make as many as it likes."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()
        self.count = 0
        """How many there were in all."""

    def adds(self, new: str) -> bool:
        """Add an id; False when it was seen before."""
        if new in self._seen:
            return False
        self._seen[new] = None
        self.count += 1
        if len(self._seen) > _MOST_IDS:
            self._seen.popitem(last=False)
        return True


class AgentEvents:
    """The events of one agent. Its texts and names may be anything: they are cut, and secrets are kept out."""

    def __init__(self, writer: EventWriter) -> None:
        self._writer = writer
        self._turns = 0
        self._calls = _Recent()
        self._refused = _Recent()
        self._refused_tools: dict[str, None] = {}
        self._claimed_tokens: int | None = None
        self._claimed_cost_usd: float | None = None
        self.last_words = ""
        """The agent's final text, as far as it is known."""
        self.session_id = ""
        """What the agent calls its session, empty where it does not: it is an argument for its program later."""

    def session(self, session_id: str) -> None:
        """Take what it calls its session, if it is a name."""
        if _SESSION.fullmatch(session_id):
            self.session_id = session_id

    def text(self, text: str, request_id: str = "") -> None:
        """Write what it says."""
        if text:
            self.last_words = text
            self._pieces(EventKind.TEXT, text, request_id)

    def thinking(self, text: str, request_id: str = "") -> None:
        """Write what it thinks."""
        self._pieces(EventKind.THINKING, text, request_id)

    def call(self, call_id: str, tool: str, arguments: object) -> None:
        """Write that it calls a tool, unless that was written before."""
        if self._calls.adds(_name(call_id)):
            given = self._cut(as_text(self._writer.redactor.value(arguments)))
            self._writer.fields(EventKind.TOOL_CALL, tool_call_id=_name(call_id), tool=_name(tool), input=given)

    def result(self, call_id: str, output: str, *, is_error: bool) -> None:
        """Write what a tool has answered."""
        shown = self._cut(output)
        self._writer.fields(EventKind.TOOL_RESULT, tool_call_id=_name(call_id), output=shown, is_error=is_error)

    def refused(self, tool: str, call_id: str) -> None:
        """Remember that a call was refused: whatever the agent says of its end, it could not do all that it wanted."""
        if self._refused.adds(_name(call_id) or f"#{self._refused.count}") and len(self._refused_tools) <= _NAMED:
            self._refused_tools[_name(tool) or "a tool"] = None

    def turn_end(self, stop_reason: str, request_id: str = "") -> None:
        """Write that a turn has ended."""
        self._turns += 1
        reason = _name(stop_reason)
        self._writer.fields(EventKind.TURN_END, turn=self._turns, stop_reason=reason, request_id=_name(request_id))

    def note(self, text: str, step: str = "") -> None:
        """Write a line for people."""
        line = " ".join(self._writer.redactor.text(text).split())[:_MAX_NOTE]
        self._writer.note(without_halves(line), step)

    def delivered(self, message_id: str, text: str) -> None:
        """Write that a message was delivered to the agent."""
        self._writer.fields(EventKind.MESSAGE_DELIVERED, message_id=message_id, text=self._cut(text))

    def permission_request(self, permission_id: str, tool: str, arguments: object, call_id: str) -> PermissionRequest:
        """Return a question to people about a call, without secrets."""
        given = self._cut(as_text(self._writer.redactor.value(arguments)))
        return PermissionRequest(permission_id, _name(tool), given, _name(call_id))

    def asked(self, request: PermissionRequest) -> None:
        """Write that people are asked."""
        self._writer.fields(EventKind.PERMISSION_REQUEST, **asdict(request))

    def answered(self, permission_id: str, answer: PermissionAnswer) -> None:
        """Write what they have answered."""
        self._writer.fields(EventKind.PERMISSION_ANSWER, permission_id=permission_id, **asdict(answer))

    def claim(self, tokens: int, cost_usd: float | None) -> None:
        """Remember what the agent says that it has used, all in all."""
        self._claimed_tokens, self._claimed_cost_usd = min(tokens, MOST), cost_usd

    def refusals(self) -> Problem | None:
        """Return that tools were refused, if any were."""
        if not self._refused.count:
            return None
        tools = list(self._refused_tools)
        more = ", …" if len(tools) > _NAMED else ""
        return Problem(f"it was refused {self._refused.count} of its tool calls ({', '.join(tools[:_NAMED])}{more})")

    def model_use(self) -> ModelUse:
        """Return what the agent did, and what it says that it used; who asks its model knows that better."""
        words = self._cut(self.last_words.strip()).encode()[-_LAST_WORDS_BYTES:].decode(errors="ignore")
        return ModelUse(
            tokens=0,
            cost_usd=None,
            turns=self._turns,
            tool_calls=self._calls.count,
            last_words=words,
            claimed_tokens=self._claimed_tokens,
            claimed_cost_usd=self._claimed_cost_usd,
        )

    def _pieces(self, kind: EventKind, text: str, request_id: str) -> None:
        clean = without_halves(self._writer.redactor.text(text))
        for start in range(0, len(clean), _MAX_CHARACTERS):
            piece = clean[start : start + _MAX_CHARACTERS]
            self._writer.fields(kind, text=piece, request_id=_name(request_id))

    def _cut(self, text: str) -> str:
        clean = self._writer.redactor.text(text).encode("utf-8", "replace")
        return clean[:_MAX_BYTES].decode(errors="ignore")


def of_status(status: int, text: str) -> Problem:
    """Return the problem of an agent whose model's API answers with an HTTP status; 0 when it did not answer."""
    is_away = not status or status in {408, 409, 425, 429} or status >= 500
    return Problem(text, Reason.MODEL_UNAVAILABLE if is_away else Reason.MODEL_FAILED)


def _name(text: str) -> str:
    return without_halves(text)[:_MAX_NAME]
