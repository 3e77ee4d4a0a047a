"""What a model is told once, in a request that may be the last which its budget lets through.

It is a text at the end of what is said to it, in the form of the wire. Answers pass by as they come, and a recording
has what the agent said.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from services.agent.providers import ModelWire
from services.execution.door.attempts import Attempt, NoProviderError, object_in

LAST: Final = (
    "[Notice] The budget for this work is nearly spent: after this answer no request may be let through any more. Leave"
    " your files in a state that others can use, and say what is done and what is left."
)


def with_notice(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the same requests, whose models are told: those as they are that have no place for it."""
    return [replace(each, body=told(each.route.wire, each.body)) for each in attempts]


def told(wire: ModelWire, body: bytes) -> bytes:
    """Return a request's body with the notice; as it is when it has no place for it."""
    try:
        fields = object_in(body)
    except NoProviderError:  # who lets it pass reads nothing in it
        return body
    name = _SAID[wire]
    said = fields.get(name)
    if wire is ModelWire.RESPONSES and isinstance(said, str):
        said = [{"role": "user", "content": said}]
    if not isinstance(said, list) or not said:
        return body
    longer = _longer(wire, said)
    return body if longer is None else json.dumps({**fields, name: longer}).encode()


def _longer(wire: ModelWire, said: Sequence[Any]) -> list[Any] | None:
    if wire in (ModelWire.RESPONSES, ModelWire.CHAT):
        return [*said, {"role": "user", "content": LAST}]
    # The other two want speakers in turn, so the notice goes into what the user has said last.
    last = said[-1]
    name, part = (
        ("content", {"type": "text", "text": LAST}) if wire is ModelWire.MESSAGES else ("parts", {"text": LAST})
    )
    if not isinstance(last, dict) or last.get("role", "user") != "user":
        return None
    parts = last.get(name)
    if isinstance(parts, str):
        parts = [{"type": "text", "text": parts}]
    return [*said[:-1], {**last, name: [*parts, part]}] if isinstance(parts, list) else None


_SAID: Final = {
    ModelWire.MESSAGES: "messages",
    ModelWire.RESPONSES: "input",
    ModelWire.CHAT: "messages",
    ModelWire.GEMINI: "contents",
}
