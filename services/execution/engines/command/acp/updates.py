"""What an agent tells while it works, as the events that it has for every engine."""

import difflib
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.execution.engines.command.readers.events import AgentEvents
from services.execution.engines.command.readers.shapes import Json, an_object, as_text, objects, text
from services.redaction.strand import Redactor, TextFlow

_FLUSH_AT: Final = 2048
_FLUSH_AFTER_S: Final = 0.1
_LAST_WORDS: Final = 16 * 1024
_MOST_CALLS: Final = 512
_MOST_TITLE: Final = 1000
_MOST_HELD: Final = 128 * 1024  # characters of what a call is given and answers: twice what an event has room for
_DIFF_BYTES: Final = 32 * 1024
_OVER: Final = ("completed", "failed")
_CHUNKS: Final = {"agent_message_chunk": "text", "agent_thought_chunk": "thinking"}


@dataclass(slots=True)
class Call:
    """What is known of one call of a tool, of which agents tell a part at a time."""

    call_id: str
    kind: str = ""
    title: str = ""
    given: Any = None
    shown: str = ""
    output: str = ""
    is_told: bool = False
    is_over: bool = False

    @property
    def tool(self) -> str:
        """Its kind in the protocol, such as `execute`, or else its title, which is a sentence."""
        return self.title if self.kind in {"", "other"} and self.title else self.kind or "other"

    @property
    def input(self) -> object:
        """What it is called with, or else what it is called."""
        return self.given or {"title": self.title}

    def learn(self, fields: Json) -> None:
        """Take what an update says; what it leaves out stays."""
        self.kind = text(fields.get("kind"))[:_MOST_TITLE] or self.kind
        self.title = text(fields.get("title"))[:_MOST_TITLE] or self.title
        self.given = _held(fields.get("rawInput")) or self.given
        if content := objects(fields.get("content")):
            self.shown = "\n".join(filter(None, map(_shown, content)))[:_MOST_HELD]
        if output := fields.get("rawOutput"):
            self.output = as_text(output)[:_MOST_HELD]

    def said(self) -> str:
        """Return what it has answered."""
        return self.shown or self.output


class Updates:
    """Takes the updates of one session in their order, and collects pieces of text for a tenth of a second."""

    def __init__(self, events: AgentEvents, redactor: Redactor) -> None:
        self._events = events
        self._redactor = redactor
        self._flow = TextFlow(redactor)
        self._of = ("", "")
        self._text = ""
        self._flush_at = math.inf
        self._words = ""
        self._plan = ""
        self._calls: OrderedDict[str, Call] = OrderedDict()

    def take(self, update: Json) -> None:
        """Take an update of whatever kind; one that means nothing here is left to the lines themselves."""
        kind = text(update.get("sessionUpdate"))
        if kind in _CHUNKS:
            self._piece(_CHUNKS[kind], text(update.get("messageId")), _words(update.get("content")))
            return
        match kind:
            case "tool_call" | "tool_call_update":
                self.call(update)
            case "plan":
                self._take_plan(objects(update.get("entries")))
            case "current_mode_update":
                self._note(f"the agent's mode is {text(update.get('currentModeId'))}", "mode")

    def call(self, fields: Json) -> Call:
        """Take what is said of a call, and tell of it as soon as its input is known; return what is known of it."""
        call_id = text(fields.get("toolCallId"))[:_MOST_TITLE]
        if (call := self._calls.get(call_id)) is None:
            call = self._calls[call_id] = Call(call_id)
            if len(self._calls) > _MOST_CALLS:
                self._end_call(self._calls.popitem(last=False)[1], is_error=False)
        if call.is_over:
            return call
        call.learn(fields)
        if call.given:
            self._tell(call)
        if (status := text(fields.get("status"))) in _OVER:
            self._end_call(call, is_error=status == "failed")
        return call

    def asked(self, fields: Json) -> Call:
        """Take what is said of a call that the agent asks about: one of no id, or of an old one, is another call."""
        call_id = text(fields.get("toolCallId"))[:_MOST_TITLE]
        if (known := self._calls.get(call_id)) is not None and (known.is_over or not call_id):
            self._end_call(self._calls.pop(call_id), is_error=False)
        return self.call(fields)

    def refused(self, call: Call) -> None:
        """Remember that a call was refused, whatever the agent makes of it."""
        self._events.refused(call.tool, call.call_id)

    def end_turn(self, stop_reason: str) -> None:
        """Tell the rest: nothing follows in this turn, and of a call that was left open nobody says how it ended."""
        for call in [call for call in self._calls.values() if not call.is_over]:
            self._end_call(call, is_error=False)
        self._calls.clear()
        self.end_text()
        self._events.turn_end(stop_reason)

    def due(self) -> float:
        """When to call `flush`, on the monotonic clock."""
        return self._flush_at

    def flush(self, *, last: bool = False) -> None:
        """Tell the text so far, except for what may be the beginning of a secret."""
        said, self._text, self._flush_at = self._flow.take(self._text, last=last), "", math.inf
        kind, message_id = self._of
        if not said:
            return
        if kind == "thinking":
            self._events.thinking(said, message_id)
        else:
            self._events.text(said, message_id)
            self._words = (self._words + said)[-_LAST_WORDS:]
            self._events.last_words = self._words

    def end_text(self) -> None:
        """Tell the rest of a text, because something else follows."""
        self.flush(last=True)
        self._flow = TextFlow(self._redactor)
        self._of, self._words = ("", ""), ""

    def _piece(self, kind: str, message_id: str, piece: str) -> None:
        if (kind, message_id) != self._of:
            self.end_text()
            self._of = (kind, message_id)
        self._text += piece
        if len(self._text) >= _FLUSH_AT:
            self.flush()
        elif self._text:
            self._flush_at = min(self._flush_at, time.monotonic() + _FLUSH_AFTER_S)

    def _take_plan(self, entries: Sequence[Json]) -> None:
        lines = (f"[{text(entry.get('status')) or 'pending'}] {text(entry.get('content'))}" for entry in entries)
        plan = "; ".join(lines)
        if plan and plan != self._plan:
            self._plan = plan
            self._note(plan, "plan")

    def _tell(self, call: Call) -> None:
        if not call.is_told:
            call.is_told = True
            self.end_text()
            self._events.call(call.call_id, call.tool, call.input)

    def _end_call(self, call: Call, *, is_error: bool) -> None:
        if call.is_over:
            return
        self._tell(call)
        call.is_over = True
        self.end_text()
        self._events.result(call.call_id, call.said(), is_error=is_error)
        call.given, call.shown, call.output = None, "", ""

    def _note(self, line: str, step: str) -> None:
        self.end_text()
        self._events.note(line, step)


def _held(value: object) -> object:
    """Return a value to be held until a call is over, or its beginning as text."""
    written = as_text(value)
    return value if len(written) <= _MOST_HELD else written[:_MOST_HELD]


def is_piece(update: Json) -> bool:
    """True for a piece of text: a secret can be in many of them, so that the text they make is what is kept."""
    content = an_object(update.get("content"))
    return text(update.get("sessionUpdate")) in _CHUNKS and content.get("type") == "text"


def _words(content: object) -> str:
    """Return a block of content as text: what is not text is named."""
    block = an_object(content)
    match block.get("type"):
        case "text":
            return text(block.get("text"))
        case "resource_link":
            return f"[{text(block.get('uri'))}]"
        case "resource":
            resource = an_object(block.get("resource"))
            return text(resource.get("text")) or f"[{text(resource.get('uri'))}]"
        case kind:
            return f"[{text(kind) or 'nothing'}]"


def _shown(part: Json) -> str:
    """Return a part of what a tool has answered as text."""
    match part.get("type"):
        case "content":
            return _words(part.get("content"))
        case "diff":
            return _diff(text(part.get("path")), text(part.get("oldText")), text(part.get("newText")))
        case kind:
            return f"[{text(kind) or 'nothing'}]"


def _diff(path: str, before: str, after: str) -> str:
    if len(before) + len(after) > _DIFF_BYTES:
        return f"[{path} was changed; it is too large to be compared here]"
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm=""))
