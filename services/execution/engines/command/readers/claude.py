"""Reads Claude Code's `--output-format stream-json`: https://docs.claude.com/en/docs/claude-code/sdk.

One `assistant` line for each block of a message, with the message's id; `user` lines have the results of tools; the
last line is a `result`, whose usage is that of this run, and whose cost that of the whole session.
"""

from services.execution.engines.command.readers.events import AgentEvents, Problem, of_status
from services.execution.engines.command.readers.shapes import Json, an_object, as_text, count, dollars, objects, text
from services.execution.model import Reason

_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_OVER_BUDGET = ("error_max_turns", "error_max_budget_usd")
_SHOWN = 300


class Reader:
    """Reads the lines of one run."""

    def __init__(self, events: AgentEvents) -> None:
        self._events = events
        self._message_id = ""
        self._stop_reason = ""
        self._result: Json | None = None

    def take(self, line: Json) -> None:
        """Read a line."""
        match line.get("type"):
            case "system":
                self._system(line)
            case "assistant":
                self._assistant(an_object(line.get("message")))
            case "user":
                self._user(an_object(line.get("message")))
            case "result":
                self._end(line)

    def problem(self) -> Problem | None:
        """Return why the work is not done; None when it is."""
        result = self._result
        if result is None:
            return Problem("it said no result, so that it ended before its work was done")
        said = text(result.get("result")) or "; ".join(map(as_text, objects_or_texts(result.get("errors"))))
        subtype, terminal = text(result.get("subtype")), text(result.get("terminal_reason"))
        if subtype in _OVER_BUDGET:
            return Problem(f"{subtype}: {said[:_SHOWN]}".rstrip(": "), Reason.BUDGET_EXCEEDED)
        if terminal.startswith("aborted"):
            return Problem(f"it was interrupted ({terminal})")
        if result.get("is_error") or subtype != "success":
            return self._failed(result, said[:_SHOWN] or subtype or "it says that it failed")
        return self._events.refusals()

    def _failed(self, result: Json, said: str) -> Problem:
        status = count(result.get("api_error_status"))
        if status or said.startswith("API Error"):
            return of_status(status, said)
        return Problem(said)

    def _system(self, line: Json) -> None:
        match line.get("subtype"):
            case "init":
                self._events.session(text(line.get("session_id")))
                version, model = text(line.get("claude_code_version")), text(line.get("model"))
                self._events.note(f"Claude Code {version}, model {model}", "begin")
            case "api_retry":
                attempt, most = count(line.get("attempt")), count(line.get("max_retries"))
                said = f"{as_text(line.get('error_status'))} {as_text(line.get('error'))}"
                self._events.note(f"asking the model again ({attempt} of {most}): {said}", "retry")
            case "permission_denied":
                self._events.refused(text(line.get("tool_name")), text(line.get("tool_use_id")))
            case "compact_boundary":
                self._events.note("the conversation was made shorter", "compact")

    def _assistant(self, message: Json) -> None:
        message_id = text(message.get("id"))
        if message_id != self._message_id:
            self._end_turn()
            self._message_id = message_id
        self._stop_reason = text(message.get("stop_reason")) or self._stop_reason
        for block in objects(message.get("content")):
            match block.get("type"):
                case "text":
                    self._events.text(text(block.get("text")), message_id)
                case "thinking":
                    self._events.thinking(text(block.get("thinking")), message_id)
                case "tool_use" | "server_tool_use":
                    self._stop_reason = self._stop_reason or "tool_use"
                    self._events.call(text(block.get("id")), text(block.get("name")), block.get("input"))

    def _user(self, message: Json) -> None:
        for block in objects(message.get("content")):
            if block.get("type") == "tool_result":
                output = answer(block.get("content"))
                self._events.result(text(block.get("tool_use_id")), output, is_error=bool(block.get("is_error")))

    def _end(self, line: Json) -> None:
        self._end_turn()
        self._result = line
        self._events.last_words = text(line.get("result")) or self._events.last_words
        for denial in objects(line.get("permission_denials")):
            self._events.refused(text(denial.get("tool_name")), text(denial.get("tool_use_id")))
        usage = an_object(line.get("usage"))
        self._events.claim(sum(count(usage.get(name)) for name in _TOKENS), dollars(line.get("total_cost_usd")))

    def _end_turn(self) -> None:
        if self._message_id:
            self._events.turn_end(self._stop_reason or "end_turn", self._message_id)
        self._message_id = self._stop_reason = ""


def objects_or_texts(value: object) -> list[object]:
    """Return a list, or an empty one."""
    return value if isinstance(value, list) else []


def answer(content: object) -> str:
    """Return what a tool has answered as text: what is not text is named."""
    if not isinstance(content, list):
        return as_text(content) if content else ""
    said = (
        text(each.get("text")) if each.get("type") == "text" else f"[{as_text(each.get('type'))}]"
        for each in objects(content)
    )
    return "\n".join(said)
