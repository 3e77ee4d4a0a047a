"""What becomes of an agent's question whether it may call a tool: the sandbox is around it, so that it may."""

from collections.abc import Sequence
from typing import Final

from services.execution.engines.command.acp.connection import Connection
from services.execution.engines.command.acp.updates import Updates
from services.execution.engines.command.readers.shapes import Json, an_object, objects, text

_ALLOW: Final = ("allow_once", "allow_always")
_REJECT: Final = ("reject_once", "reject_always")


class Permissions:
    """Answers the questions of one agent. Options are chosen by their kind: agents list them in any order."""

    def __init__(self, connection: Connection, updates: Updates) -> None:
        self._connection = connection
        self._updates = updates

    def asked(self, request_id: object, params: Json, *, is_ending: bool) -> None:
        """Answer a question; in a turn that is being ended, by that."""
        call = self._updates.call(an_object(params.get("toolCall")))
        option = None if is_ending else chosen(objects(params.get("options")), _ALLOW)
        if option is None:
            self._connection.answer(request_id, {"outcome": {"outcome": "cancelled"}})
            self._updates.refused(call)
        else:
            self._connection.answer(request_id, {"outcome": {"outcome": "selected", "optionId": option}})


def chosen(options: Sequence[Json], kinds: Sequence[str]) -> str | None:
    """Return the id of the option of the first of these kinds that there is; None when there is none."""
    by_kind = {text(option.get("kind")): text(option.get("optionId")) for option in reversed(options)}
    return next((by_kind[kind] for kind in kinds if by_kind.get(kind)), None)
