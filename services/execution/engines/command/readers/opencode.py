"""Reads OpenCode's `opencode run --format json`: the parts of messages, each when it is whole."""

from services.execution.engines.command.readers.events import AgentEvents, Problem, of_status
from services.execution.engines.command.readers.shapes import Json, an_object, as_text, count, dollars, text

_GOES_ON = "tool-calls"
_REFUSED = "rejected permission"
_SHOWN = 300


class Reader:
    """Reads the lines of one run."""

    def __init__(self, events: AgentEvents) -> None:
        self._events = events
        self._stop_reason = ""
        self._error: Json | None = None
        self._tokens = 0
        self._cost_usd: float | None = 0.0

    def take(self, line: Json) -> None:
        """Read a line."""
        part = an_object(line.get("part"))
        self._events.session(text(line.get("sessionID")))
        match line.get("type"):
            case "step_start":
                self._stop_reason, self._error = "", None
            case "text":
                self._events.text(text(part.get("text")), text(part.get("messageID")))
            case "reasoning":
                self._events.thinking(text(part.get("text")), text(part.get("messageID")))
            case "tool_use":
                self._tool(part)
            case "step_finish":
                self._step(part)
            case "error":
                self._error = an_object(line.get("error"))

    def problem(self) -> Problem | None:
        """Return why the work is not done; None when it is."""
        if self._error is not None:
            data = an_object(self._error.get("data"))
            said = (text(data.get("message")) or as_text(self._error.get("name")))[:_SHOWN]
            status, is_the_models = count(data.get("statusCode")), self._error.get("name") == "APIError"
            return of_status(status, said) if status or is_the_models else Problem(said)
        if not self._stop_reason or self._stop_reason == _GOES_ON:
            return Problem("its last step did not end, so that it ended before its work was done")
        if self._stop_reason != "stop":
            return Problem(f"its last answer ended with {self._stop_reason}")
        return self._events.refusals()

    def _tool(self, part: Json) -> None:
        state, call_id, tool = an_object(part.get("state")), text(part.get("callID")), text(part.get("tool"))
        self._events.call(call_id, tool, state.get("input"))
        is_error = state.get("status") == "error"
        output = as_text(state.get("error" if is_error else "output") or "")
        exit_code = an_object(state.get("metadata")).get("exit")
        self._events.result(call_id, output, is_error=is_error or bool(exit_code))
        if is_error and _REFUSED in output:
            self._events.refused(tool, call_id)

    def _step(self, part: Json) -> None:
        self._stop_reason = text(part.get("reason"))
        self._events.turn_end(self._stop_reason, text(part.get("messageID")))
        tokens, cost = an_object(part.get("tokens")), dollars(part.get("cost"))
        cache = an_object(tokens.get("cache"))
        own = [tokens.get(name) for name in ("input", "output", "reasoning")]
        self._tokens += sum(map(count, [*own, cache.get("read"), cache.get("write")]))
        self._cost_usd = None if cost is None or self._cost_usd is None else self._cost_usd + cost
        self._events.claim(self._tokens, self._cost_usd)
