"""Reads Codex's `codex exec --json`: items that begin and are completed, and turns; usage is the whole thread's."""

import re

from services.execution.engines.command.readers.events import AgentEvents, Problem, of_status
from services.execution.engines.command.readers.shapes import Json, an_object, as_text, count, text
from services.execution.model import Reason

_TOKENS = ("input_tokens", "output_tokens")  # those of the cache and of reasoning are among them
_STATUS = re.compile(r"\b(?:status|error)[: ]+([1-5]\d\d)\b", re.IGNORECASE)
_WORDS = ("agent_message", "reasoning", "error", "todo_list")
_SHOWN = 300


class Reader:
    """Reads the lines of one run."""

    def __init__(self, events: AgentEvents) -> None:
        self._events = events
        self._is_done = False
        self._failure = ""

    def take(self, line: Json) -> None:
        """Read a line."""
        match line.get("type"):
            case "thread.started":
                self._events.session(text(line.get("thread_id")))
            case "turn.started":
                self._is_done, self._failure = False, ""
            case "item.started" if self._is_tool(item := an_object(line.get("item"))):
                self._call(item)
            case "item.completed":
                self._completed(an_object(line.get("item")))
            case "turn.completed":
                self._is_done = True
                usage = an_object(line.get("usage"))
                self._events.claim(sum(count(usage.get(name)) for name in _TOKENS), None)
                self._events.turn_end("completed")
            case "turn.failed":
                self._failure = text(an_object(line.get("error")).get("message")) or "its turn failed"
                self._events.turn_end("failed")
            case "error":
                self._events.note(text(line.get("message")), "retry")

    def problem(self) -> Problem | None:
        """Return why the work is not done; None when it is."""
        if self._failure:
            said = self._failure[:_SHOWN]
            status = _STATUS.search(self._failure)
            is_the_models = status is not None or "stream disconnected" in self._failure
            if status is None and self._failure.startswith("{"):  # the answer of the model's API, which refuses
                return Problem(said, Reason.MODEL_FAILED)
            return of_status(int(status[1]) if status else 0, said) if is_the_models else Problem(said)
        if not self._is_done:
            return Problem("its turn did not end, so that it ended before its work was done")
        return self._events.refusals()

    @staticmethod
    def _is_tool(item: Json) -> bool:
        return text(item.get("type")) not in _WORDS

    def _completed(self, item: Json) -> None:
        match item.get("type"):
            case "agent_message":
                self._events.text(text(item.get("text")), text(item.get("id")))
            case "reasoning":
                self._events.thinking(text(item.get("text")), text(item.get("id")))
            case "error":
                self._events.note(text(item.get("message")))
            case "todo_list":
                pass
            case _:
                self._call(item)
                self._result(item)

    def _call(self, item: Json) -> None:
        tool, given = _called(item)
        self._events.call(text(item.get("id")), tool, given)

    def _result(self, item: Json) -> None:
        status = text(item.get("status"))
        if status == "declined":
            self._events.refused(_called(item)[0], text(item.get("id")))
        is_error = status in {"failed", "declined"} or bool(item.get("error")) or bool(item.get("exit_code"))
        output = next(
            (item[name] for name in ("aggregated_output", "result", "error", "changes") if item.get(name)), ""
        )
        self._events.result(text(item.get("id")), as_text(output), is_error=is_error)


def _called(item: Json) -> tuple[str, object]:
    """Return the name of the tool that an item is a call of, and what it is given."""
    match item.get("type"):
        case "command_execution":
            return "command", {"command": item.get("command")}
        case "mcp_tool_call":
            return f"{as_text(item.get('server'))}.{as_text(item.get('tool'))}", item.get("arguments")
        case "file_change":
            return "file_change", {"changes": item.get("changes")}
        case kind:
            known = {"id", "type", "status"}
            return text(kind), {name: value for name, value in item.items() if name not in known}
