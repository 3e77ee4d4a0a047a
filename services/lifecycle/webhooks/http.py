"""One call of a server by HTTP, bounded in time, tries and bytes."""

import asyncio
import ssl
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import httpx2

from services.lifecycle.webhooks.addresses import AllowList, NotAllowed, resolve, url_complaint
from services.lifecycle.webhooks.callback import Callback, CallbackAnswer, try_callback
from services.lifecycle.webhooks.retries import TRIES, CallFailed, TryFailed, with_retries
from services.lifecycle.webhooks.signing import signed_headers

MAX_ANSWER_BYTES: Final = 64 << 10

_LONGEST_RETRY_AFTER_SECONDS: Final = 30.0
_TRIED_AGAIN: Final = {408, 429}  # beside 5xx


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A POST to a server. `message_id` is the same for all tries, whoever makes them; `timeout` is that of each try."""

    message_id: str
    url: str
    key: bytes
    body: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """A server's 2xx answer; `is_whole` is False when the body was cut, or is compressed."""

    status: int
    body: bytes
    is_whole: bool
    tries: int = 1


class Webhooks:
    """Calls servers, by HTTP and by gRPC, at addresses that are public or allowed."""

    def __init__(self, allowed: AllowList | None = None, *, first_pause_seconds: float = 0.5) -> None:
        self._allowed = allowed or AllowList()
        self._first_pause_seconds = first_pause_seconds
        self._tls: ssl.SSLContext | None = None

    async def call(self, call: WebhookRequest, *, tries: int = TRIES) -> WebhookResponse:
        """Make a call, with up to `tries` tries. Raises CallFailed."""
        if complaint := url_complaint(call.url, self._allowed):  # the setting may have changed since the registration
            raise CallFailed(f"its URL {complaint}")
        return await with_retries(
            call.message_id, partial(self._try, call), first_pause_seconds=self._first_pause_seconds, tries=tries
        )

    async def ask(self, call: Callback, *, tries: int = TRIES) -> CallbackAnswer:
        """Make a call by gRPC, with up to `tries` tries. Raises CallFailed."""
        if complaint := url_complaint(call.url, self._allowed):
            raise CallFailed(f"its URL {complaint}")

        async def attempt(number: int) -> CallbackAnswer:
            return await try_callback(call, self._allowed, number)

        return await with_retries(call.call_id, attempt, first_pause_seconds=self._first_pause_seconds, tries=tries)

    async def _try(self, call: WebhookRequest, number: int) -> WebhookResponse:
        try:
            async with asyncio.timeout(call.timeout):
                return await self._post(call, number)
        except NotAllowed as refused:
            raise CallFailed(str(refused), number) from refused
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise TryFailed(f"no answer within {call.timeout:g} s") from error
        except (httpx2.TransportError, OSError) as error:
            raise TryFailed(f"no connection: {error or type(error).__name__}") from error

    async def _post(self, call: WebhookRequest, number: int) -> WebhookResponse:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads the system's certificates
        url = httpx2.URL(call.url)
        addresses = await resolve(url, self._allowed)
        address = addresses[(number - 1) % len(addresses)]
        headers = {
            **signed_headers(call.key, call.message_id, int(time.time()), call.body),
            "host": url.netloc.decode(),
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "Boatyard",
        }
        async with (
            httpx2.AsyncClient(
                verify=self._tls, timeout=call.timeout, trust_env=False, follow_redirects=False
            ) as client,
            client.stream(
                "POST",
                url.copy_with(host=str(address)),
                content=call.body,
                headers=headers,
                extensions={"sni_hostname": url.raw_host.decode()},  # also the name that its certificate must have
            ) as response,
        ):
            if not response.is_success:
                raise _refusal(response, number)
            body, is_whole = await _bounded(response)
            return WebhookResponse(response.status_code, body, is_whole, number)


def _refusal(response: httpx2.Response, number: int) -> Exception:
    said = f"answered {response.status_code}"
    if response.status_code >= 500 or response.status_code in _TRIED_AGAIN:
        wish = response.headers.get("retry-after", "")
        return TryFailed(said, min(float(wish), _LONGEST_RETRY_AFTER_SECONDS) if wish.isdecimal() else None)
    return CallFailed(f"{said}: redirects are not followed" if response.is_redirect else said, number)


async def _bounded(response: httpx2.Response) -> tuple[bytes, bool]:
    """Read a body up to its bound, and return whether that is all of it, uncompressed."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            return bytes(body[:MAX_ANSWER_BYTES]), False
    return bytes(body), response.headers.get("content-encoding", "identity") == "identity"
