"""The four wires: which paths they have, how one shows a key or says an error on each, and what tells an agent."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from services.agent.providers import ModelProvider, ModelWire, key_header
from services.execution.door.http import Request

_SEGMENT = r"(?!\.\.?(?:[/:]|$))[A-Za-z0-9._:@~-]+"  # a model's name never leads out of its place
_ID = rf"{_SEGMENT}(?:/(?!operations(?:/|$)){_SEGMENT})*"  # operations of a model are what others have asked of it


@dataclass(frozen=True, slots=True)
class Route:
    """Something that is passed on. What is `metered` is an answer of a model, which has a price."""

    method: str
    path: re.Pattern[str]
    wire: ModelWire
    metered: bool = False


def _route(method: str, path: str, wire: ModelWire, *, metered: bool = False) -> Route:
    return Route(method, re.compile(path), wire, metered)


# What is kept at a provider (files, batches, stored answers) is not here: a key sees what others have put there.
_ROUTES: Final = (
    _route("POST", "/v1/messages", ModelWire.MESSAGES, metered=True),
    _route("POST", "/v1/messages/count_tokens", ModelWire.MESSAGES),
    _route("GET", f"/v1/models(?:/{_ID})?", ModelWire.MESSAGES),
    _route("POST", "/v1/responses", ModelWire.RESPONSES, metered=True),
    _route("POST", "/v1/responses/compact", ModelWire.RESPONSES, metered=True),
    _route("POST", "/v1/responses/input_tokens", ModelWire.RESPONSES),
    _route("GET", f"/v1/models(?:/{_ID})?", ModelWire.RESPONSES),
    _route("POST", "/v1/chat/completions", ModelWire.CHAT, metered=True),
    _route("GET", f"/v1/models(?:/{_ID})?", ModelWire.CHAT),
    _route(
        "POST", f"/v1(?:beta)?/models/({_ID}):(?:generateContent|streamGenerateContent)", ModelWire.GEMINI, metered=True
    ),
    _route("POST", f"/v1(?:beta)?/models/({_ID}):countTokens", ModelWire.GEMINI),
    _route("GET", f"/v1beta/models(?:/{_ID})?", ModelWire.GEMINI),
)
TOKEN_VARIABLE: Final = "BOATYARD_DOOR_TOKEN"  # noqa: S105 - its name
HELLO: Final = ("/api/hello", "/")
"""Where clients ask whether anybody is there; the door answers that itself."""

_OPENAI: Final = (ModelWire.RESPONSES, ModelWire.CHAT)
REFUSED: Final = {ModelWire.MESSAGES: 402, ModelWire.RESPONSES: 400, ModelWire.CHAT: 400, ModelWire.GEMINI: 402}
"""The statuses after which the clients of each wire ask no more."""

CREDENTIAL_FIELDS: Final = (b"authorization", b"x-api-key", b"x-goog-api-key")
OURS_FIELDS: Final = (
    *(b"openai-organization", b"openai-project", b"x-goog-user-project", b"x-http-method-override"),
    b"x-goog-fieldmask",
)
"""Who pays is for the provider's settings to say, what is done for the routes, and an answer has its usage."""
_OURS_PARAMETERS: Final = ("key", "fields", "$fields")

_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
_STATES: Final = {
    402: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}


def routes(request: Request) -> list[Route]:
    """Return what a request may be, by method and path; empty when it is nothing that is passed on."""
    found = [route for route in _ROUTES if route.method == request.method and route.path.fullmatch(request.path)]
    # Two APIs list their models at one path.
    speaks_messages = spoken(request) is ModelWire.MESSAGES
    if len(found) > 1:
        found = [route for route in found if (route.wire is ModelWire.MESSAGES) == speaks_messages]
    return found


def spoken(request: Request) -> ModelWire:
    """Return the wire that a request seems to be of, whose form an error should have."""
    if request.path.startswith("/v1beta/") or request.value(b"x-goog-api-key"):
        return ModelWire.GEMINI
    if request.path.startswith("/v1/messages") or request.value(b"anthropic-version") or request.value(b"x-api-key"):
        return ModelWire.MESSAGES
    return ModelWire.RESPONSES


def shown_tokens(request: Request) -> list[bytes]:
    """Return what a request shows as its key."""
    shown = [request.value(b"x-api-key"), request.value(b"x-goog-api-key")]
    scheme, _, bearer = request.value(b"authorization").partition(b" ")
    if scheme.lower() == b"bearer":
        shown.append(bearer.strip())
    shown += [value.encode() for name, value in parse_qsl(request.query[1:]) if name == "key"]
    return [token for token in shown if token]


def query_there(query: str) -> str:
    """Return a query without the parameters that are not passed on: a key, and what parts an answer should have.

    Some clients of Gemini show their key so. And without its usage, an answer would cost nothing that is known.
    """
    pairs = parse_qsl(query[1:], keep_blank_values=True)
    if not any(name in _OURS_PARAMETERS for name, _ in pairs):
        return query
    rest = [(name, value) for name, value in pairs if name not in _OURS_PARAMETERS]
    return f"?{urlencode(rest)}" if rest else ""


def key_fields(provider: ModelProvider, key: str) -> list[tuple[bytes, bytes]]:
    """Return the header fields that show a provider its key, and say whom to charge."""
    fields: list[tuple[bytes, bytes]] = []
    if key:
        name, value = key_header(provider.wire, key)
        fields.append((name.encode(), value.encode()))
    if provider.project_header:
        payer = b"x-goog-user-project" if provider.wire is ModelWire.GEMINI else b"openai-project"
        fields.append((payer, provider.project_header.encode()))
    return fields


def error(wire: ModelWire, status: int, text: str) -> bytes:
    """Return the body of an error in the form that the clients of a wire understand."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    text = f"Boatyard: {text}"
    if wire is ModelWire.MESSAGES:
        return json.dumps({"type": "error", "error": {"type": kind, "message": text}}).encode()
    if wire is ModelWire.GEMINI:
        state = _STATES.get(status, "INVALID_ARGUMENT")
        return json.dumps({"error": {"code": status, "message": text, "status": state}}).encode()
    return json.dumps({"error": {"message": text, "type": kind, "param": None, "code": None}}).encode()


def variables(wires: Iterable[ModelWire], url: str, token: str, own: Mapping[str, object]) -> dict[str, bytes]:
    """Return the variables that tell an agent of its door.

    `own` are those that it has anyway. Where it says itself where a wire is, or has a key for it, it goes its own way.
    """
    has = frozenset(wires)
    groups: list[dict[str, str]] = [{"BOATYARD_DOOR_URL": url, TOKEN_VARIABLE: token}]
    if ModelWire.MESSAGES in has and "ANTHROPIC_AUTH_TOKEN" not in own:
        groups.append({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": token})
    if has.intersection(_OPENAI):
        groups.append({"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": token})
    if ModelWire.GEMINI in has and "GOOGLE_API_KEY" not in own:
        groups.append({"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": token})
    told = [group for group in groups if not group.keys() & own.keys()]
    return {name: value.encode() for group in told for name, value in group.items()}
