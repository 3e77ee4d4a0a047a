"""Whom a request may be sent to, in the order in which they are tried: providers of one wire, and their keys."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any, Final

from services.agent.providers import ModelProvider, ModelWire
from services.common.untrusted_json import most_values, parse_json
from services.execution.door import wires
from services.execution.door.http import Request
from services.execution.door.mask import Mask
from services.execution.door.upstream import Upstream
from services.execution.door.wires import Route

_REFUSES_KEY: Final = (401, 403, 429)
_ASKS_FOR_STREAM: Final = re.compile(rb'"stream"\s*:\s*true')
_MOST_VALUES: Final = 1 << 20  # in a body that is read, which takes some hundred bytes for each of them
_UNREADABLE: Final = "the body of a request must be an object of JSON, without compression"
_ASK_FOR_USAGE: Final = b'{"stream_options": {"include_usage": true}, '


class NoProviderError(Exception):
    """Nobody can be asked, or nobody answers; `status` is what the agent is told."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Serving:
    """A provider, the connections to it, and what of it no agent sees."""

    provider: ModelProvider
    upstream: Upstream
    mask: Mask


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to send a request: to whom, with which key, and as what. `model` is empty where it makes no difference.

    With `asks_usage` we ask for the usage of a chat, and the agent did not. `key_number` counts a provider's keys from
    1; 0 is for none.
    """

    serving: Serving
    route: Route
    key: str
    path: str
    body: bytes
    model: str
    asks_usage: bool
    key_number: int = 0

    @property
    def is_streamed(self) -> bool:
        """True when the answer is to come as it is written, so that it begins soon."""
        return self.path.partition("?")[0].endswith(":streamGenerateContent") or bool(
            _ASKS_FOR_STREAM.search(self.body)
        )

    def followed_by(self, others: Iterable["Attempt"], status: int) -> list["Attempt"]:
        """Return those to go on with instead of an answer of this status: with another key, or another provider."""
        return list(dropwhile(lambda other: not self._may_be_followed_by(other, status), others))

    def _may_be_followed_by(self, other: "Attempt", status: int) -> bool:
        return status in _REFUSES_KEY if other.serving is self.serving else status >= 500


def attempts(request: Request, body: bytes, routes: Sequence[Route], servings: Sequence[Serving]) -> Iterator[Attempt]:
    """Yield all ways to send a request, at least one. Raises NoProviderError."""
    by_wire = {route.wire: route for route in routes}
    able = [one for one in servings if one.provider.wire in by_wire]
    if not able:
        wanted = " or ".join(wire.lower() for wire in by_wire)
        raise NoProviderError(f"this execution has no provider of wire {wanted}", 404)
    route = by_wire[able[0].provider.wire]
    able = [one for one in able if one.provider.wire is route.wire]
    asked = (
        model_asked(request, body, route) if any(one.provider.models or one.provider.aliases for one in able) else ""
    )
    serving = [(one, _name_at(one.provider, asked)) for one in able]
    if all(name is None for _, name in serving):
        raise NoProviderError(f"no provider of this execution has the model {asked}", 404)
    asks_usage = (
        route.wire is ModelWire.CHAT and bool(_ASKS_FOR_STREAM.search(body)) and b'"stream_options"' not in body
    )
    for one, name in serving:
        if name is None:
            continue
        path, sent = request.path, body
        if asked != name and route.wire is ModelWire.GEMINI:
            path = path.replace(f"/models/{asked}:", f"/models/{name}:")
        elif asked != name:
            sent = _renamed(body, name)
        path = one.upstream.place.path(route.wire, path) + wires.query_there(request.query)
        if asks_usage:
            sent = sent.lstrip().replace(b"{", _ASK_FOR_USAGE, 1)
        for number, key in enumerate(one.provider.keys or ("",), start=bool(one.provider.keys)):
            yield Attempt(one, route, key, path, sent, name, asks_usage, number)


def _name_at(provider: ModelProvider, asked: str) -> str | None:
    """Return a provider's name for a model; None when it has no such model."""
    name = provider.aliases.get(asked, asked)
    return name if not asked or not provider.models or name in provider.models else None


def model_asked(request: Request, body: bytes, route: Route) -> str:
    """Return the model that a request asks for; empty when it names none. Raises NoProviderError."""
    match = route.path.fullmatch(request.path)
    if match is not None and match.re.groups:
        return match[1]
    model = object_in(body).get("model")
    return model if isinstance(model, str) else ""


def _renamed(body: bytes, model: str) -> bytes:
    return json.dumps({**object_in(body), "model": model}).encode()


def object_in(body: bytes) -> Mapping[str, Any]:
    """Return the object that a body is; an empty one for no body.

    Raises NoProviderError for one that cannot be read: a provider may read more in it, such as another model.
    """
    if most_values(body) > _MOST_VALUES:
        raise NoProviderError(f"a request may have {_MOST_VALUES:,} values", 413)
    try:
        value = parse_json(body) if body else {}
    except ValueError as error:
        raise NoProviderError(f"{_UNREADABLE}: {error}", 400) from error
    if not isinstance(value, dict):
        raise NoProviderError(_UNREADABLE, 400)
    return value
