"""Asking providers one after the other, until one answers."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from services.execution.door import wires
from services.execution.door.attempts import Attempt, NoProviderError, model_asked
from services.execution.door.grants import AskAgainError, Grant
from services.execution.door.http import Answer, MessageError, Request, Stream, written
from services.execution.door.outages import Gate, Outages, Trouble, about
from services.execution.door.reports import Reporter
from services.execution.door.reservation import gate_of
from services.execution.door.retry_after import retry_after_s, retry_delay_s
from services.execution.door.upstream import AddressNotAllowedError
from services.execution.door.usage_event import usage_fields

_ERROR_WITHIN_S: Final = 2.0
"""How long the body of an error is waited for, in which some providers say when to ask again."""
_TOLD_FROM_S: Final = 1.0
_WHOLE_ANSWER: Final = 5
"""How much longer than the first byte of a stream an answer may take that comes as a whole."""
_NO_ANSWER: Final = 502
_IDLE_S: Final = 30.0
_FRESH_S: Final = 2.0
"""How long a connection may have been idle for a request that is billed: servers close them after five seconds and
more, and a request that meets the end of its connection may be billed twice."""
_NUMBERS: Final = itertools.count(1)
_NOT_PASSED_ON: Final = (b"host", b"expect", b"accept-encoding", *wires.CREDENTIAL_FIELDS, *wires.OURS_FIELDS)
_MAY_PASS: Final = (408, 409, 425, 429)
"""Statuses below 500 by which nobody says that the request is wrong."""
_REFUSALS: Final = {
    401: "it does not know the key",
    402: "its account has no credit",
    403: "the key may not do this",
    404: "it has no model {model}, or not at this URL",
}
"""What statuses mean after which the same request would be refused again."""

_CAUSES: Final[dict[type[Exception], str]] = {
    ConnectionResetError: "it closes connections, as if it spoke another protocol",
    TimeoutError: "nothing comes back",
}
"""What errors without a text mean."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A provider that has answered, with anything: the rest of the answer is still to come."""

    attempt: Attempt
    stream: Stream
    answer: Answer
    number: int
    """As what the request was reported; 0 for one that costs nothing."""


class Asking:
    """Sends one request, to whoever takes it."""

    def __init__(self, request: Request, outages: Outages, reports: Reporter, grant: Grant) -> None:
        self._request = request
        self._outages = outages
        self._reports = reports
        self._grant = grant

    async def reach(self, attempts: Sequence[Attempt]) -> tuple[Reached | None, Trouble | None]:
        """Send the request to the first that takes it: return its answer, or also why that is none of a model.

        Both are returned when the last answer can be passed back, if it comes to that. Raises AskAgainError when
        whoever grants requests must hear of a gate before the next is tried.
        """
        if self._grant.closed is not None:
            return None, self._grant.closed
        waits = [self._opens_in(attempt) for attempt in attempts]
        left = [attempt for attempt, seconds in zip(attempts, waits, strict=True) if not seconds]
        if not left:
            name, seconds = attempts[0].serving.provider.name, min(waits)
            text = f"model provider {name} wants to be left alone for {about(seconds)}"
            return None, Trouble(text, name, 429, pause_s=seconds)
        while True:
            attempt, *left = left
            reached, trouble = await self._try(attempt)
            if trouble is None:
                return reached, None
            left = attempt.followed_by(left, trouble.status if reached is not None else _NO_ANSWER)
            if not left:
                if reached is None and trouble.is_refusal:  # and who can mend it sees no answers
                    await self._reports.note(trouble.text)
                soonest = min(map(self._opens_in, attempts))
                return reached, replace(trouble, pause_s=soonest or None)
            if reached is not None:
                reached.stream.writer.close()
            await self._note(attempt, trouble, left[0])
            if self._grant.found_closed:
                raise AskAgainError(0.0)

    async def _try(self, attempt: Attempt) -> tuple[Reached | None, Trouble | None]:
        name = attempt.serving.provider.name
        provider = f"model provider {name}"
        try:
            reached = await self._ask(attempt)
        except AddressNotAllowedError as error:
            return None, Trouble(f"{provider} is not asked: {error}", name, 403, is_refusal=True)
        except (OSError, TimeoutError, MessageError) as error:
            cause = str(error) or _CAUSES.get(type(error)) or type(error).__name__
            text = f"{provider} does not answer: {cause}"
            return None, Trouble(text, name, _NO_ANSWER, is_unreached=True)
        status = reached.answer.status
        if status not in _REFUSALS and status not in _MAY_PASS and status < 500:
            return reached, None
        if status not in _REFUSALS and (seconds := await self._retry_after(reached)) is not None:
            self._close(attempt, seconds)
        text = f"{provider} answers with status {status}"
        if status in _REFUSALS:
            text = f"{text}: {_REFUSALS[status].format(model=self._model(attempt) or 'asked for')}"
        return reached, Trouble(text, name, status, is_refusal=status in _REFUSALS)

    async def _retry_after(self, reached: Reached) -> float | None:
        """Return for how long a provider wants to be left alone, as the head of its answer says, or else the body."""
        seconds = retry_after_s(reached.answer)
        with suppress(OSError, TimeoutError, MessageError):  # the body is passed back, or fails, as any other
            async with asyncio.timeout(_ERROR_WITHIN_S):
                if seconds is None:
                    seconds = retry_delay_s(await reached.stream.peek(reached.answer.body(self._request.method)))
        return seconds

    def _close(self, attempt: Attempt, seconds: float) -> None:
        """Let nobody through, and tell whoever grants requests of it, unless it is over sooner than they hear of it."""
        self._outages.close(self._gate(attempt), seconds)
        if self._grant.ask_id and seconds >= _TOLD_FROM_S:
            gate = gate_of(attempt, self._model(attempt))
            self._grant.found_closed.append(replace(gate, open_time=datetime.now(UTC) + timedelta(seconds=seconds)))

    def _opens_in(self, attempt: Attempt) -> float:
        return self._outages.opens_in(self._gate(attempt)) if self._outages.has_gates else 0.0

    def _gate(self, attempt: Attempt) -> Gate:
        gate = gate_of(attempt, self._model(attempt))
        return gate.provider, gate.key, gate.model

    def _model(self, attempt: Attempt) -> str:
        with suppress(NoProviderError):  # what cannot be read is the provider's to refuse
            return attempt.model or model_asked(self._request, attempt.body, attempt.route)
        return ""

    async def _note(self, attempt: Attempt, failed: Trouble, following: Attempt) -> None:
        is_same, there = attempt.serving is following.serving, following.serving.provider.name
        await self._reports.note(
            f"{failed.text}; {'its next key is tried' if is_same else f'{there} is asked instead'}"
        )

    async def _ask(self, attempt: Attempt) -> Reached:
        """Send the request, and return the head of its answer.

        Raises AddressNotAllowedError, OSError, TimeoutError, MessageError.
        """
        head, upstream = self._head(attempt), attempt.serving.upstream
        if (kept := await upstream.kept(_FRESH_S if attempt.route.metered else _IDLE_S)) is not None:
            try:
                return await self._send(attempt, kept, head)
            except (ConnectionError, MessageError):
                pass  # it was closed just now, which says nothing about the provider
        return await self._send(attempt, await upstream.connect(), head)

    def _head(self, attempt: Attempt) -> bytes:
        fields = self._request.end_to_end(_NOT_PASSED_ON)
        fields += wires.key_fields(attempt.serving.provider, attempt.key)
        # Without compression, because what passes is also read.
        fields += [(b"host", attempt.serving.upstream.place.authority), (b"accept-encoding", b"identity")]
        if self._request.method == "POST":
            fields.append((b"content-length", b"%d" % len(attempt.body)))
        return written(f"{self._request.method} {attempt.path} HTTP/1.1".encode(), fields)

    async def _send(self, attempt: Attempt, stream: Stream, head: bytes) -> Reached:
        """Send the request, which is reported before, and as one of unknown use when no answer comes of it."""
        wire, began, number = attempt.route.wire, time.monotonic(), 0
        if attempt.route.metered:
            number = next(_NUMBERS)
            await self._reports.sent(number, wire, usage_fields(attempt, 0.0))
        try:
            answer = await self._exchanged(stream, head + attempt.body, self._answers_within_s(attempt))
        except BaseException:
            if number:
                lost = usage_fields(attempt, time.monotonic() - began)
                await asyncio.shield(asyncio.ensure_future(self._reports.usage(wire, lost, number)))
            raise
        if number and answer.status >= 300:
            await self._reports.unbilled(number)
        return Reached(attempt, stream, answer, number)

    def _answers_within_s(self, attempt: Attempt) -> float:
        """Return how long the first byte of an answer is waited for."""
        return self._outages.first_byte_s * (1 if attempt.is_streamed else _WHOLE_ANSWER)

    async def _exchanged(self, stream: Stream, request: bytes, within_s: float) -> Answer:
        self._grant.is_pending = True
        try:
            async with asyncio.timeout(within_s):
                await stream.write(request)
                answer = await self._answer(stream)
        except BaseException as error:
            stream.writer.close()
            self._grant.is_pending = not isinstance(error, Exception)  # a provider that breaks off has not answered
            raise
        self._grant.is_pending = False
        return answer

    async def _answer(self, stream: Stream) -> Answer:
        """Return the head of the answer, after those that announce it. Raises OSError, MessageError."""
        status = 100
        while status < 200:
            if not (head := await stream.head()):
                raise ConnectionResetError("it closed the connection")
            answer = Answer.parse(head)
            status = answer.status
            if status == 101:
                raise MessageError("it changed the protocol")
        answer.body(self._request.method)  # is understood
        return answer
