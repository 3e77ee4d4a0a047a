"""One call of a server: tried again while it may yet succeed, and bounded in time, tries and bytes."""

import asyncio
import random
import ssl
import time
from dataclasses import dataclass
from typing import Final

import httpx2
import structlog

from services.lifecycle.webhooks.addresses import AllowList, NotAllowed, resolve, url_complaint
from services.lifecycle.webhooks.signing import signed_headers

TRIES: Final = 5
MAX_ANSWER_BYTES: Final = 64 << 10

_LONGEST_PAUSE_SECONDS: Final = 8.0
_LONGEST_RETRY_AFTER_SECONDS: Final = 30.0
_TRIED_AGAIN: Final = {408, 429}  # beside 5xx

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Call:
    """What a server is told. `message_id` is the same for the same call, whoever makes it; `timeout` is each try's."""

    message_id: str
    url: str
    key: bytes
    body: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said with a 2xx; `is_whole` unless the body was cut, or is packed."""

    status: int
    body: bytes
    is_whole: bool
    tries: int = 1


class CallFailed(Exception):
    """The server could not be told, or did not take it; the message says why."""


class _TryFailed(Exception):
    """It may succeed the next time; `retry_after` in seconds, where the server said it."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Webhooks:
    """Calls servers at addresses that are public, or allowed."""

    def __init__(self, allowed: AllowList | None = None, *, first_pause_seconds: float = 0.5) -> None:
        self._allowed = allowed or AllowList()
        self._first_pause_seconds = first_pause_seconds
        self._tls: ssl.SSLContext | None = None

    async def call(self, call: Call) -> Answer:
        """Make a call. Raises CallFailed."""
        if complaint := url_complaint(call.url, self._allowed):  # the setting may be another than at registration
            raise CallFailed(f"its URL {complaint}")
        pause = self._first_pause_seconds
        for number in range(1, TRIES + 1):
            try:
                return await self._try(call, number)
            except _TryFailed as failed:
                log.info("a webhook is not taken", webhook=call.message_id, number=number, error=str(failed))
                if number == TRIES:
                    raise CallFailed(f"{failed}, at the last of {TRIES} tries") from failed
                wait = failed.retry_after
            if wait is None:
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that calls do not come back all at once
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        raise AssertionError("the last try returns or raises")

    async def _try(self, call: Call, number: int) -> Answer:
        try:
            async with asyncio.timeout(call.timeout):
                return await self._post(call, number)
        except NotAllowed as refused:
            raise CallFailed(str(refused)) from refused
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _TryFailed(f"no answer within {call.timeout:g} s") from error
        except (httpx2.TransportError, OSError) as error:
            raise _TryFailed(f"no connection: {error or type(error).__name__}") from error

    async def _post(self, call: Call, number: int) -> Answer:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads the system's authorities
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
                raise _refusal(response)
            body, is_whole = await _bounded(response)
            return Answer(response.status_code, body, is_whole, number)


def _refusal(response: httpx2.Response) -> Exception:
    said = f"answered {response.status_code}"
    if response.status_code >= 500 or response.status_code in _TRIED_AGAIN:
        wish = response.headers.get("retry-after", "")
        return _TryFailed(said, min(float(wish), _LONGEST_RETRY_AFTER_SECONDS) if wish.isdecimal() else None)
    return CallFailed(f"{said}: redirects are not followed" if response.is_redirect else said)


async def _bounded(response: httpx2.Response) -> tuple[bytes, bool]:
    """Read what is looked at of an answer, and whether that is all of it, as it was meant."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            return bytes(body[:MAX_ANSWER_BYTES]), False
    return bytes(body), response.headers.get("content-encoding", "identity") == "identity"
