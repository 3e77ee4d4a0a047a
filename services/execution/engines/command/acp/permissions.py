"""What becomes of an agent's question whether it may call a tool: by its kind it may, may not, or a person is asked."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.agent.settings import TOOL_KINDS
from services.common.room import is_out_of_room
from services.execution.engines.command.acp.connection import Connection
from services.execution.engines.command.acp.task import ConversationTask
from services.execution.engines.command.acp.updates import Call, Updates
from services.execution.engines.command.readers.events import AgentEvents
from services.execution.engines.command.readers.shapes import Json, an_object, objects, text
from services.execution.inbox.messages import Inbox, PermissionRequest

_ALLOW: Final = ("allow_once", "allow_always")
_REJECT: Final = ("reject_once", "reject_always")
_LOOK_S: Final = 0.1
_MOST_OPEN: Final = 64
"""How many questions wait for people at once. An agent that asks more without waiting is refused them."""
_NEVER_MIND: Final = {"outcome": {"outcome": "cancelled"}}


@dataclass(slots=True)
class _Asked:
    """A question that waits for a person."""

    request_id: object
    call: Call
    options: Sequence[Json]
    request: PermissionRequest
    is_written: bool = False


class Permissions:
    """Answers the questions of one agent. Options are chosen by their kind: agents list them in any order."""

    def __init__(
        self, task: ConversationTask, connection: Connection, updates: Updates, events: AgentEvents, inbox: Inbox
    ) -> None:
        self._task = task
        self._connection = connection
        self._updates = updates
        self._events = events
        self._inbox = inbox
        self._waiting: list[_Asked] = []
        self._count = 0
        self.answered_at = 0.0
        """When a person answered last, on the monotonic clock."""

    @property
    def is_waiting(self) -> bool:
        """True while a person is asked: then the agent has a reason to be silent."""
        return bool(self._waiting)

    def asked(self, request_id: object, params: Json, *, is_ending: bool) -> None:
        """Answer a question, or ask a person; in a turn that is being ended, answer that it is."""
        call = self._updates.asked(an_object(params.get("toolCall")))
        options = objects(params.get("options"))
        kind = call.kind if call.kind in TOOL_KINDS else "other"
        if is_ending:
            self._connection.answer(request_id, _NEVER_MIND)
        elif kind in self._task.refuse:
            self._answer(request_id, call, options, allowed=False)
        elif kind in self._task.ask_before:
            if self._inbox.exists and len(self._waiting) < _MOST_OPEN:
                self._ask(request_id, call, options)
            else:
                self._answer(request_id, call, options, allowed=False)
        else:
            self._answer(request_id, call, options, allowed=True)

    def due(self) -> float:
        """When to call `look`, on the monotonic clock."""
        return time.monotonic() + _LOOK_S if self._waiting else math.inf

    def look(self) -> None:
        """Look for what people have answered."""
        for asked in list(self._waiting):
            self._write(asked)
            if asked.is_written and (answer := self._inbox.answer_to(asked.request.permission_id)) is not None:
                self._waiting.remove(asked)
                self.answered_at = time.monotonic()
                self._events.answered(asked.request.permission_id, answer)
                self._answer(asked.request_id, asked.call, asked.options, allowed=answer.allowed)

    def give_up(self) -> None:
        """Ask nobody any more: the turn is being ended."""
        for asked in self._waiting:
            self._connection.answer(asked.request_id, _NEVER_MIND)
        self._waiting.clear()

    def _ask(self, request_id: object, call: Call, options: Sequence[Json]) -> None:
        self._count += 1
        request = self._events.permission_request(f"p{self._count}", call.tool, call.input, call.call_id)
        asked = _Asked(request_id, call, options, request)
        self._waiting.append(asked)
        self._write(asked)

    def _write(self, asked: _Asked) -> None:
        """Write a question down as soon as the disk has room for it."""
        if asked.is_written:
            return
        try:
            self._inbox.ask(asked.request)
        except OSError as error:
            if not is_out_of_room(error):
                raise
            return
        asked.is_written = True
        self._updates.end_text()
        self._events.asked(asked.request)

    def _answer(self, request_id: object, call: Call, options: Sequence[Json], *, allowed: bool) -> None:
        option = chosen(options, _ALLOW if allowed else _REJECT)
        outcome = {"outcome": "selected", "optionId": option}
        self._connection.answer(request_id, _NEVER_MIND if option is None else {"outcome": outcome})
        if not allowed or option is None:
            self._updates.refused(call)


def chosen(options: Sequence[Json], kinds: Sequence[str]) -> str | None:
    """Return the id of the option of the first of these kinds that there is; None when there is none."""
    by_kind = {text(option.get("kind")): text(option.get("optionId")) for option in reversed(options)}
    return next((by_kind[kind] for kind in kinds if by_kind.get(kind)), None)
