"""What is said to an agent, from the first request to the proper end of its last turn.

    initialize → session/load or session/new → its mode and model → session/prompt, as often as there are messages

Each step begins when the one before is answered. Nothing here waits: `due` says when to call `act`.
"""

import time
from collections.abc import Iterator
from typing import Any, Final

from services.execution.engines.command.acp.connection import Connection
from services.execution.engines.command.acp.lines import Lines
from services.execution.engines.command.acp.permissions import Permissions
from services.execution.engines.command.acp.settings_offered import NotOfferedError, changes
from services.execution.engines.command.acp.task import ConversationTask
from services.execution.engines.command.acp.updates import Updates
from services.execution.engines.command.readers.events import AgentEvents, Problem
from services.execution.engines.command.readers.shapes import Json, an_object, text
from services.execution.eventlog import EventWriter, Stream
from services.execution.inbox.messages import Inbox, Message
from services.execution.model import LAST_SESSION, Reason

_PROTOCOL: Final = 1
_ANSWER_S: Final = 180.0
"""How long the agent has for each step before its first turn: some have to load half a gigabyte."""
_HISTORY_S: Final = 600.0
_ENDS: Final = {
    "max_tokens": (Reason.MODEL_FAILED, "its model's answer was cut off"),
    "max_turn_requests": (Reason.BUDGET_EXCEEDED, "it was not done after all the requests to its model that it allows"),
    "refusal": (Reason.MODEL_FAILED, "its model declines to go on with this conversation"),
    "cancelled": (Reason.AGENT_FAILED, "it says that its turn was cancelled, which nobody asked for"),
}
_DONE: Final = "end_turn"


class Conversation:
    """One conversation. It is over when its last turn has ended, or cannot go on."""

    def __init__(
        self, task: ConversationTask, writer: EventWriter, inbox: Inbox, prompt: str, *, cwd: str, session_id: str
    ) -> None:
        """`session_id` is the session to go on in, empty for a new one. The agent works in `cwd`."""
        self.events = AgentEvents(writer)
        self._task = task
        self._inbox = inbox
        self._prompt = prompt
        self._cwd = cwd
        self._earlier = "" if session_id == LAST_SESSION else session_id
        self._connection = Connection()
        self._updates = Updates(self.events, writer.redactor)
        self._permissions = Permissions(task, self._connection, self._updates, self.events, inbox)
        self._lines = Lines(writer, self.events, self._take)
        self._delivered: set[str] = set()
        self._session_id = ""
        self._has_begun = self._is_loaded = False
        self._replayed = 0
        self._in_turn = False
        self._is_ending = False
        self._problem: Problem | None = Problem("it ended before its work was done")
        self.is_over = False
        """True when nothing more is asked of the agent."""

    @property
    def program_end(self) -> int:
        """The descriptor that is the program's standard input."""
        return self._connection.program_end

    def begin(self) -> None:
        """Say the first word, to a program that has been started."""
        from importlib.metadata import version  # noqa: PLC0415 - slow to import, and few programs are spoken to

        self._connection.close_program_end()
        capabilities = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        client = {"name": "boatyard", "title": "Boatyard", "version": version("boatyard")}
        params = {"protocolVersion": _PROTOCOL, "clientCapabilities": capabilities, "clientInfo": client}
        self._connection.request("initialize", params, self._initialized, self._fail, _ANSWER_S)

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Take a piece of the program's output."""
        self._lines.output(stream, data, time_ns)

    def end(self) -> None:
        """Say that no output follows."""
        self._lines.end()
        self._updates.end_text()
        self.close()

    def problem(self) -> Problem | None:
        """Return why the work is not done; None when it is."""
        return self._problem or self.events.refusals()

    def due(self) -> float:
        """When to call `act`, on the monotonic clock."""
        return min(self._connection.due(), self._updates.due(), self._permissions.due())

    @property
    def is_waiting(self) -> bool:
        """True while a person is asked, and nothing has to be heard of the agent."""
        return self._permissions.is_waiting

    @property
    def answered_at(self) -> float:
        """When a person answered last, on the monotonic clock."""
        return self._permissions.answered_at

    def act(self) -> None:
        """Do whatever is due."""
        self._connection.push()
        self._permissions.look()
        if time.monotonic() >= self._updates.due():
            self._updates.flush()

    def cancel(self) -> bool:
        """Ask the agent to end its turn; return False when it is in none."""
        self._is_ending = True
        if not self._in_turn:
            return False
        self._connection.notify("session/cancel", {"sessionId": self._session_id})
        self._permissions.give_up()
        return True

    def close(self) -> None:
        """Say nothing more, and take no more messages."""
        self._connection.close()
        if self._inbox.exists:
            self._inbox.close()

    def _take(self, message: Json) -> None:
        method = message.get("method")
        if not isinstance(method, str):
            self._connection.take_answer(message)
        elif method == "session/request_permission" and "id" in message:
            self._permissions.asked(
                message["id"], an_object(message.get("params")), is_ending=self._is_ending or self.is_over
            )
        elif "id" in message:
            self._connection.refuse(message["id"], method)
        elif method == "session/update":
            self._update(an_object(message.get("params")))

    def _update(self, params: Json) -> None:
        if not self._has_begun:  # some replay a session before they say that it is loaded, and some after that
            self._replayed += 1
        elif text(params.get("sessionId")) in ("", self._session_id) or not self._session_id:
            self._updates.take(an_object(params.get("update")))

    def _initialized(self, answer: Json) -> None:
        if answer.get("protocolVersion") != _PROTOCOL:
            self._fail(f"it speaks version {answer.get('protocolVersion')} of the protocol, and Boatyard {_PROTOCOL}")
            return
        info = an_object(answer.get("agentInfo"))
        if name := text(info.get("title")) or text(info.get("name")):
            self.events.note(f"{name} {text(info.get('version'))}", "begin")
        if self._earlier and an_object(answer.get("agentCapabilities")).get("loadSession") is True:
            params = {"sessionId": self._earlier, **self._place()}
            self._connection.request("session/load", params, self._loaded, self._not_loaded, _HISTORY_S)
        else:
            self._make_session()

    def _loaded(self, answer: Json) -> None:
        self._is_loaded = True
        self._begin_session(self._earlier, answer)

    def _not_loaded(self, why: str) -> None:
        self.events.note(f"the agent begins a new session: {why}", "session")
        self._make_session()

    def _make_session(self) -> None:
        def made(answer: Json) -> None:
            self._begin_session(text(answer.get("sessionId")), answer)

        self._connection.request("session/new", self._place(), made, self._fail, _ANSWER_S)

    def _place(self) -> dict[str, Any]:
        return {"cwd": self._cwd, "mcpServers": []}

    def _begin_session(self, session_id: str, offered: Json) -> None:
        self._session_id = session_id
        self.events.session(session_id)
        try:
            steps = list(changes(offered, self._task.mode, self._task.model))
        except NotOfferedError as error:
            if self._task.is_held:
                self._fail(f"{error}, in which alone it would ask for permission")
                return
            self.events.note(f"{error}, and works in its own", "mode")
            steps = list(changes(offered, "", self._task.model))
        self._change(iter(steps))

    def _change(self, steps: Iterator[tuple[str, dict[str, Any]]]) -> None:
        """Make one change of the session's settings after the other, and then begin its first turn."""
        step = next(steps, None)
        if step is None:
            self._begin_turns()
            return

        def go_on(_: Json) -> None:
            self._change(steps)

        method, params = step
        self._connection.request(method, {"sessionId": self._session_id, **params}, go_on, self._fail, _ANSWER_S)

    def _begin_turns(self) -> None:
        self._has_begun = True
        if self._is_loaded:
            told = f"{self._replayed} updates of its history are not told again"
            self.events.note(f"the agent goes on in its session; {told}", "session")
        self._ask([each for each in (self._task.system_prompt, self._prompt) if each])

    def _ask(self, texts: list[str]) -> None:
        if self._is_ending:
            return
        self._in_turn = True
        blocks = [{"type": "text", "text": each} for each in texts]
        params = {"sessionId": self._session_id, "prompt": blocks}
        self._connection.request("session/prompt", params, self._turn_ended, self._turn_failed)

    def _turn_failed(self, why: str) -> None:
        self._updates.end_turn("error")
        self._fail(why)

    def _turn_ended(self, answer: Json) -> None:
        self._in_turn = False
        reason = text(answer.get("stopReason"))
        self._updates.end_turn(reason)
        if reason != _DONE or self._is_ending:
            known = _ENDS.get(reason, (Reason.AGENT_FAILED, f"its turn ended for a reason not known here: {reason}"))
            self._conclude(Problem(known[1], known[0]))
        elif messages := self._new_messages():
            for message in messages:
                self._delivered.add(message.message_id)
                self.events.delivered(message.message_id, message.text)
            self._ask([message.text for message in messages])
        else:
            self._conclude(None)

    def _new_messages(self) -> list[Message]:
        """Return the messages that the agent has not had. When there are none, none is taken any more."""
        if not self._inbox.exists:
            return []
        while not self._inbox.close(self._delivered):
            if new := [each for each in self._inbox.messages() if each.message_id not in self._delivered]:
                return new
        return []

    def _fail(self, why: str) -> None:
        self._conclude(Problem(why))

    def _conclude(self, problem: Problem | None) -> None:
        self._in_turn = False
        self._problem = problem
        self.is_over = True
