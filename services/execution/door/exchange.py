"""One request on its way to a provider, and its answer on the way back."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from services.execution.door import wires
from services.execution.door.attempts import Attempt, NoProviderError
from services.execution.door.grants import Grant
from services.execution.door.http import Answer, Body, MessageError, Request, Stream, written
from services.execution.door.mask import Mask, MaskedBody
from services.execution.door.memory import Memory
from services.execution.door.reports import Reporter
from services.execution.door.upstream import AddressNotAllowedError
from services.execution.door.usage import UsageChunkFilter, UsageReader

_ANSWERS_WITHIN_S: Final = 900.0
_NO_ANSWER: Final = 502
_NOT_PASSED_ON: Final = (b"host", b"expect", b"accept-encoding", *wires.CREDENTIAL_FIELDS, *wires.OURS_FIELDS)
_MOST_CHARACTERS: Final = 200
_CONNECTION_CLOSE: Final = (b"connection", b"close")


class Exchange:
    """Passes one request on, and its answer back."""

    def __init__(self, request: Request, client: Stream, memory: Memory, reports: Reporter, grant: Grant) -> None:
        self._request = request
        self._client = client
        self._memory = memory
        self._reports = reports
        self._grant = grant
        self._began = time.monotonic()

    async def run(self, attempts: Sequence[Attempt]) -> bool:
        """Answer the client; return whether its connection can be used again.

        Raises NoProviderError while nothing has been answered, OSError when either end is lost after that.
        """
        left = list(attempts)
        while left:
            attempt, *left = left
            provider = f"model provider {attempt.serving.provider.name}"
            try:
                stream, answer = await self._ask(attempt)
            except AddressNotAllowedError as error:
                failed = NoProviderError(f"{provider} is not asked: {error}", 403)
                left = attempt.followed_by(left, _NO_ANSWER)
                if not left:  # and who can mend it sees no answers
                    await self._reports.note(str(failed))
            except (OSError, TimeoutError, MessageError) as error:
                failed = NoProviderError(
                    f"{provider} does not answer: {str(error) or type(error).__name__}", _NO_ANSWER
                )
                left = attempt.followed_by(left, _NO_ANSWER)
            else:
                if not (left := attempt.followed_by(left, answer.status)):
                    return await self._pass_back(attempt, stream, answer)
                stream.writer.close()
                failed = NoProviderError(f"{provider} answers with status {answer.status}", answer.status)
            if not left:
                raise failed
            await self._note(attempt, failed, left[0])
        raise AssertionError("an attempt that none follows returns or raises")

    async def _note(self, attempt: Attempt, failed: NoProviderError, following: Attempt) -> None:
        is_same, there = attempt.serving is following.serving, following.serving.provider.name
        await self._reports.note(f"{failed}; {'its next key is tried' if is_same else f'{there} is asked instead'}")

    async def _ask(self, attempt: Attempt) -> tuple[Stream, Answer]:
        """Send the request, and return the head of its answer.

        Raises AddressNotAllowedError, OSError, TimeoutError, MessageError.
        """
        head, upstream = self._head(attempt), attempt.serving.upstream
        if (kept := await upstream.kept()) is not None:
            try:
                return await self._send(kept, head, attempt.body)
            except (ConnectionError, MessageError):
                pass  # it was closed just now, which says nothing about the provider
        return await self._send(await upstream.connect(), head, attempt.body)

    def _head(self, attempt: Attempt) -> bytes:
        fields = self._request.end_to_end(_NOT_PASSED_ON)
        fields += wires.key_fields(attempt.serving.provider, attempt.key)
        # Without compression, because what passes is also read.
        fields += [(b"host", attempt.serving.upstream.place.authority), (b"accept-encoding", b"identity")]
        if self._request.method == "POST":
            fields.append((b"content-length", b"%d" % len(attempt.body)))
        return written(f"{self._request.method} {attempt.path} HTTP/1.1".encode(), fields)

    async def _send(self, stream: Stream, head: bytes, body: bytes) -> tuple[Stream, Answer]:
        self._grant.is_pending = True
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                await stream.write(head + body)
                answer = await self._answer(stream)
        except BaseException as error:
            stream.writer.close()
            self._grant.is_pending = not isinstance(error, Exception)  # a provider that breaks off has not answered
            raise
        self._grant.is_pending = False
        return stream, answer

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

    async def _pass_back(self, attempt: Attempt, stream: Stream, answer: Answer) -> bool:
        """Pass an answer back as it comes, and report what the request has used, also when it breaks off."""
        reader, filtering = None, None
        if attempt.route.metered and answer.status < 300:
            is_stream = answer.value(b"content-type").startswith(b"text/event-stream")
            reader = UsageReader(attempt.route.wire, self._memory, is_stream=is_stream)
            filtering = UsageChunkFilter() if attempt.asks_usage and is_stream else None
        is_complete = False
        try:
            keeps_alive = await self._relay(stream, answer, attempt.serving.mask, reader, filtering)
            is_complete = True
        except MessageError as error:  # of which the client can only be told by the end of its connection
            raise ConnectionResetError(str(error)) from error
        finally:
            if is_complete and answer.keeps_alive and answer.body(self._request.method) != Body():
                attempt.serving.upstream.keep(stream)
            else:
                stream.writer.close()
            if reader is not None:
                reader.end()
                report = self._report(attempt, answer, reader, is_complete=is_complete)
                self._grant.is_counted = True
                await asyncio.shield(asyncio.ensure_future(self._reports.usage(attempt.route.wire, report)))
        return keeps_alive

    async def _relay(
        self,
        stream: Stream,
        answer: Answer,
        mask: Mask,
        reader: UsageReader | None,
        filtering: UsageChunkFilter | None,
    ) -> bool:
        """Pass an answer back; return whether the client's connection can be used again."""
        body = answer.body(self._request.method)
        has_length = body.length is not None and filtering is None
        chunked = not has_length and self._request.minor > 0
        keeps_alive = self._request.keeps_alive and (has_length or chunked)
        fields = [(name, mask.masked(value)) for name, value in answer.end_to_end()]
        if chunked:
            fields.append((b"transfer-encoding", b"chunked"))
        elif has_length and (length := answer.value(b"content-length")):
            fields.append((b"content-length", length))
        if not keeps_alive:
            fields.append(_CONNECTION_CLOSE)
        await self._client.write(written(b"HTTP/1.1 %d %s" % (answer.status, mask.masked(answer.phrase)), fields))
        masked = MaskedBody(mask)
        async for data in stream.pieces(body):
            await self._pass(masked.take(data if filtering is None else filtering.take(data)), chunked=chunked)
            if reader is not None:
                reader.take(data)
        if filtering is not None:
            await self._pass(masked.take(filtering.rest()), chunked=chunked)
        await self._pass(masked.rest(), chunked=chunked)
        if chunked:
            await self._client.write(b"0\r\n\r\n")
        return keeps_alive

    async def _pass(self, data: bytes, *, chunked: bool) -> None:
        if data:
            await self._client.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)

    def _report(self, attempt: Attempt, answer: Answer, reader: UsageReader, *, is_complete: bool) -> dict[str, object]:
        """Return the fields of a Usage event."""
        usage = reader.usage
        request_id = answer.value(b"request-id") or answer.value(b"x-request-id")
        return {
            "request_id": _shown(usage.request_id or request_id.decode("latin-1")),
            "model": _shown(usage.model or attempt.model),
            "input_tokens": usage.input or 0,
            "output_tokens": usage.output or 0,
            "cache_read_tokens": usage.cache_read or 0,
            "cache_write_tokens": usage.cache_write or 0,
            "cache_write_1h_tokens": usage.cache_write_1h or 0,
            "reasoning_tokens": usage.reasoning or 0,
            "provider": attempt.serving.provider.name,
            "http_status": answer.status,
            "latency_seconds": round(time.monotonic() - self._began, 6),
            "is_partial": not is_complete or usage.input is None or usage.output is None,
            "ask_id": self._grant.ask_id,
        }


def _shown(text: str) -> str:
    """Return a text that somebody else wrote as events can have it: without the halves of characters that JSON has."""
    return text[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()
