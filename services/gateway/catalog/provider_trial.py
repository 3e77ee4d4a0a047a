"""A trial of a provider: its list of models is asked for, with each of its keys, which costs nothing.

Guarantees that only addresses are called that are public or that the setting allows, and that no key is in the answer.
"""

import asyncio
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import httpx2

from services.agent.providers import ModelProvider, ModelWire, key_header, keys_by_name, path_there
from services.common import display
from services.common.untrusted_json import parse_json
from services.lifecycle.webhooks import AllowList, url_complaint
from services.lifecycle.webhooks.addresses import NotAllowed, resolve
from services.redaction.strand import Redactor

_SECONDS: Final = 15.0
_MAX_BODY: Final = 1 << 20
_MAX_WORDS: Final = 300


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went: whether all requests succeeded, and what came back, in one line."""

    succeeded: bool
    message: str


async def try_provider(provider: ModelProvider, allowed: AllowList) -> Trial:
    """Ask a provider for its models with each of its keys, or without one where it has none."""
    if complaint := url_complaint(provider.base_url, allowed):  # the setting may have changed since it was made
        return Trial(succeeded=False, message=f"its URL {complaint}")
    redactor = Redactor({name: key.encode() for name, key in keys_by_name([provider]).items()}, finds_tokens=False)
    began = time.monotonic()
    for number, key in enumerate(provider.keys or ("",), start=1):
        which = f"key {number} of {len(provider.keys)}: " if len(provider.keys) > 1 else ""
        try:
            async with asyncio.timeout(_SECONDS):
                status, body = await _asked(provider, key, allowed)
        except NotAllowed as refused:
            return Trial(succeeded=False, message=str(refused))
        except (TimeoutError, httpx2.TimeoutException):
            return Trial(succeeded=False, message=f"{which}no answer within {_SECONDS:g} s")
        except (httpx2.TransportError, OSError, ssl.SSLError, UnicodeError) as error:
            words = redactor.text(str(error) or type(error).__name__)
            return Trial(succeeded=False, message=f"{which}no connection: {display.one_line(words)[:_MAX_WORDS]}")
        if not 200 <= status < 300:
            words = display.one_line(redactor.text(_words(body)))[:_MAX_WORDS]
            return Trial(succeeded=False, message=f"{which}answered {status}" + (f": {words}" if words else ""))
    each = f" to each of its {len(provider.keys)} keys" if len(provider.keys) > 1 else ""
    return Trial(succeeded=True, message=f"answered {status}{each} in {time.monotonic() - began:.2f} s{_models(body)}")


async def _asked(provider: ModelProvider, key: str, allowed: AllowList) -> tuple[int, bytes]:
    """Return the status and the beginning of the body that a provider answers with."""
    base = httpx2.URL(provider.base_url)
    address, *_ = await resolve(base, allowed)
    tls = await asyncio.to_thread(ssl.create_default_context, cadata=provider.ca or None)
    headers = {
        "host": base.netloc.decode(),
        "accept-encoding": "identity",
        "user-agent": "Boatyard",
        **dict(_headers(provider, key)),
    }
    async with (
        httpx2.AsyncClient(verify=tls, timeout=_SECONDS, trust_env=False, follow_redirects=False) as client,
        client.stream(
            "GET",
            base.copy_with(host=str(address), path=_path(provider.wire, base.path)),
            headers=headers,
            extensions={"sni_hostname": base.raw_host.decode()},
        ) as response,
    ):
        body = b""
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > _MAX_BODY:
                break
        return response.status_code, body[:_MAX_BODY]


def _path(wire: ModelWire, prefix: str) -> str:
    path = "/v1beta/models" if wire is ModelWire.GEMINI else "/v1/models"
    return path_there(wire, prefix.rstrip("/"), path)


def _headers(provider: ModelProvider, key: str) -> Iterator[tuple[str, str]]:
    is_gemini, is_messages = provider.wire is ModelWire.GEMINI, provider.wire is ModelWire.MESSAGES
    if is_messages:
        yield "anthropic-version", "2023-06-01"
    if key:
        yield key_header(provider.wire, key)
    if provider.project_header and not is_messages:
        yield "x-goog-user-project" if is_gemini else "openai-project", provider.project_header


def _words(body: bytes) -> str:
    """Return what an error says: the message that all wires have in one place, or else the body as text."""
    try:
        message = parse_json(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return body.decode(errors="replace")
    return str(message)


def _models(body: bytes) -> str:
    """Return how many models an answer lists, if it lists any."""
    try:
        answer = parse_json(body)
    except ValueError:
        return ", and no JSON: is this the provider's API?"
    found = (answer.get("data") or answer.get("models")) if isinstance(answer, dict) else None
    return f", and lists {len(found)} models" if isinstance(found, list) else ""
