"""Reads Gemini CLI's `--output-format stream-json`: pieces of messages, calls of tools, and a `result` in the end."""

import re

from services.execution.engines.command.readers.events import AgentEvents, Problem, of_status
from services.execution.engines.command.readers.shapes import Json, an_object, as_text, count, text

_OF_THE_API = "[API Error"
_STATUS = re.compile(r'"?(?:code|status)"?: *([1-5]\d\d)')
_SHOWN = 300
_LAST_WORDS = 16 * 1024  # which is more than is shown of them
_MOST_TOOLS = 4096  # that are called and have not answered


class Reader:
    """Reads the lines of one run."""

    def __init__(self, events: AgentEvents) -> None:
        self._events = events
        self._words = ""
        self._tools: dict[str, str] = {}
        self._result: Json | None = None

    def take(self, line: Json) -> None:
        """Read a line."""
        kind = line.get("type")
        if kind != "message" and self._words:
            self._events.last_words, self._words = self._words, ""
        match kind:
            case "init":
                self._events.session(text(line.get("session_id")))
                self._events.note(f"Gemini CLI, model {text(line.get('model'))}", "begin")
            case "message" if line.get("role") == "assistant":
                piece = text(line.get("content"))
                self._words = (self._words + piece)[-_LAST_WORDS:]
                self._events.text(piece)
            case "tool_use":
                call_id, tool = text(line.get("tool_id")), text(line.get("tool_name"))
                if len(self._tools) < _MOST_TOOLS:
                    self._tools[call_id[:_SHOWN]] = tool[:_SHOWN]
                self._events.call(call_id, tool, line.get("parameters"))
            case "tool_result":
                self._answer(line)
            case "error":
                self._events.note(text(line.get("message")), text(line.get("severity")))
            case "result":
                self._end(line)

    def problem(self) -> Problem | None:
        """Return why the work is not done; None when it is."""
        if self._result is None:
            return Problem("it said no result, so that it ended before its work was done")
        if self._result.get("status") != "success":
            error = an_object(self._result.get("error"))
            said = (text(error.get("message")) or as_text(error.get("type")))[:_SHOWN]
            status = _STATUS.search(said)
            return of_status(int(status[1]) if status else 0, said) if _OF_THE_API in said else Problem(said)
        return self._events.refusals()

    def _answer(self, line: Json) -> None:
        call_id, error = text(line.get("tool_id")), an_object(line.get("error"))
        tool = self._tools.pop(call_id[:_SHOWN], "")
        is_error = line.get("status") == "error"
        said = text(line.get("output")) or text(error.get("message"))
        self._events.result(call_id, said, is_error=is_error)
        if is_error and "denied" in text(error.get("type")).lower():
            self._events.refused(tool, call_id)

    def _end(self, line: Json) -> None:
        self._result = line
        stats = an_object(line.get("stats"))
        self._events.claim(count(stats.get("total_tokens")), None)
        self._events.turn_end(text(line.get("status")))
