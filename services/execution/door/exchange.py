"""One request on its way to a provider, and its answer on the way back."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from services.execution.door.asking import Asking, Reached
from services.execution.door.attempts import Attempt, NoProviderError
from services.execution.door.grants import AskAgainError, Grant
from services.execution.door.http import Answer, Body, MessageError, Request, Stream, written
from services.execution.door.mask import Mask, MaskedBody
from services.execution.door.memory import Memory
from services.execution.door.outages import Outages, Trouble, about
from services.execution.door.recording import Track
from services.execution.door.reports import Reporter
from services.execution.door.usage import UsageChunkFilter, UsageReader
from services.execution.door.usage_event import usage_fields

_CONNECTION_CLOSE: Final = (b"connection", b"close")


class Exchange:
    """Passes one request on, and its answer back."""

    def __init__(
        self,
        request: Request,
        client: Stream,
        memory: Memory,
        reports: Reporter,
        *,
        outages: Outages,
        track: Track | None = None,
        grant: Grant,
    ) -> None:
        """`track` records the answer, and `grant` is what the request was granted by."""
        self._request = request
        self._client = client
        self._asking = Asking(request, outages, reports, grant)
        self._outages = outages
        self._memory = memory
        self._reports = reports
        self._grant = grant
        self._track = track or Track()
        self._began = time.monotonic()

    async def run(self, attempts: Sequence[Attempt]) -> bool:
        """Answer the client; return whether its connection can be used again.

        What will pass soon is waited out. Raises NoProviderError while nothing has been answered, AskAgainError when
        it is to be granted anew, OSError when either end is lost after that.
        """
        while True:
            reached, trouble = await self._asking.reach(attempts)
            with contextlib.ExitStack() as unless_passed_back:
                if reached is not None:
                    unless_passed_back.callback(reached.stream.writer.close)
                pause = await self._pause(trouble) if attempts[0].route.metered else None
                if pause is None and reached is not None:
                    unless_passed_back.pop_all()
            if pause is not None and (self._grant.closed or self._grant.found_closed):
                raise AskAgainError(pause)
            if pause is not None:
                await asyncio.sleep(pause)
            elif reached is not None:
                return await self._pass_back(reached)
            elif trouble is not None:
                raise NoProviderError(trouble.text, trouble.status)

    async def _pause(self, trouble: Trouble | None) -> float | None:
        """Return after how many seconds to ask again, if at all, and tell of an outage."""
        if trouble is None:
            if self._outages.answered():
                await self._reports.trouble(None)
            return None
        pause = self._outages.pause(trouble)
        await self._reports.trouble(replace(trouble, is_over=pause is None))
        if pause is not None:
            await self._reports.note(f"{trouble.text}; asked again in {about(pause)}")
        return pause

    async def _pass_back(self, reached: Reached) -> bool:
        """Pass an answer back as it comes, and report what the request has used, also when it breaks off."""
        attempt, stream, answer = reached.attempt, reached.stream, reached.answer
        reader, filtering = None, None
        if attempt.route.metered and answer.status < 300:
            is_stream = answer.value(b"content-type").startswith(b"text/event-stream")
            reader = UsageReader(attempt.route.wire, self._memory, is_stream=is_stream)
            filtering = UsageChunkFilter() if attempt.asks_usage and is_stream else None
        is_complete = False
        self._track.answer(attempt.serving.provider.name, answer)
        try:
            keeps_alive = await self._relay(stream, answer, attempt.serving.mask, reader, filtering)
            is_complete = True
        except MessageError as error:  # of which the client can only be told by the end of its connection
            raise ConnectionResetError(str(error)) from error
        finally:
            self._track.end(is_complete=is_complete)
            if is_complete and answer.keeps_alive and answer.body(self._request.method) != Body():
                attempt.serving.upstream.keep(stream)
            else:
                stream.writer.close()
            if reader is not None:
                reader.end()
                seconds = time.monotonic() - self._began
                is_whole = is_complete or reader.is_whole
                report = usage_fields(attempt, seconds, answer, reader.usage, is_complete=is_whole)
                report |= {"ask_id": self._grant.ask_id}
                self._grant.is_counted = True
                telling = self._reports.usage(attempt.route.wire, report, reached.number)
                await asyncio.shield(asyncio.ensure_future(telling))
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
            self._track.take(data)
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
