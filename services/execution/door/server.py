"""The door as the agent sees it: who is let in, and with which requests."""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from typing import Any, Final

from services.agent.providers import ModelProvider, ModelWire
from services.execution.door import wires
from services.execution.door.attempts import Attempt, NoProviderError, Serving, attempts
from services.execution.door.exchange import Exchange
from services.execution.door.grants import AskAgainError, Grant, Grants, NotGrantedError
from services.execution.door.http import CHUNK, MessageError, Request, Stream, written
from services.execution.door.mask import Mask
from services.execution.door.memory import Held, Memory
from services.execution.door.notice import with_notice
from services.execution.door.outages import FIRST_BYTE_S, Outages, Trouble
from services.execution.door.recording import Track
from services.execution.door.reports import Reporter
from services.execution.door.reservation import reservation
from services.execution.door.tapes import NO_TAPES, Tapes
from services.execution.inbox.asks import Asks

BODY_BYTES: Final = 64 << 20
"""The most that a request's body may have."""

_MAX_CLIENTS: Final = 256
_NEXT_WITHIN_S: Final = 300.0
_BODY_WITHIN_S: Final = 600.0
_LINGERS_S: Final = 2.0
_PHRASES: Final = {
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    413: b"Content Too Large",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
}


class _RefusedError(Exception):
    """A request is answered by us; `status` and the text are for the agent."""

    def __init__(self, status: int, text: str, *, closes: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.closes = closes


class Door:
    """Serves the agent of one execution."""

    def __init__(
        self,
        providers: Iterable[ModelProvider],
        token: str,
        reports: Reporter,
        patience_s: float = 0.0,
        *,
        tapes: Tapes = NO_TAPES,
        asks: Asks | None = None,
        first_byte_s: float = FIRST_BYTE_S,
    ) -> None:
        """`patience_s` is how long to wait for models that do not answer, `tapes` what is recorded and replayed.

        `first_byte_s` is how long a provider may say nothing before a stream begins. With `asks`, each request that may
        cost something is asked for before it is sent.

        Raises ValueError for a provider that cannot be reached by what is known of it, OSError for files that cannot be
        opened.
        """
        self._recording = tapes.recording()
        upstream = tapes.upstreams(reports)
        self._servings = [Serving(provider, upstream(provider), Mask(provider.keys)) for provider in providers]
        self._token = token.encode()
        self._reports = reports
        self._memory = Memory()
        self._outages = Outages(patience_s, first_byte_s)
        self._grants = None if asks is None else Grants(asks, reports, self._outages)
        self._clients: dict[asyncio.Task[Any], None] = {}  # the oldest first
        self._known: set[asyncio.Task[Any]] = set()  # those of them that have shown the token
        self._has_told = False

    async def serve(self, listening: socket.socket) -> None:
        """Serve connections until cancelled; then end them, and report what they have used."""
        server = await asyncio.start_server(self._accept, sock=listening, limit=CHUNK)
        try:
            await server.serve_forever()
        finally:
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            for serving in self._servings:
                serving.upstream.close()
            if self._grants is not None:
                self._grants.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not self._has_room():
            writer.transport.abort()
            return
        self._clients[task] = None
        task.add_done_callback(self._forget)
        try:
            await self._serve(Stream(reader, writer))
        except (OSError, TimeoutError, MessageError, asyncio.CancelledError):
            pass  # either end is gone, or what comes is no request: there is nobody to answer
        finally:
            writer.close()

    def _has_room(self) -> bool:
        """Make room for a connection; False when there is none.

        Without a sandbox, all users of the machine can connect. So whoever has not shown the token gives way, the
        oldest first, and fills no place of those who have.
        """
        if len(self._clients) < 2 * _MAX_CLIENTS:
            return True
        stranger = next((client for client in self._clients if client not in self._known), None)
        if stranger is None:
            return False
        stranger.cancel()
        self._forget(stranger)
        return True

    def _forget(self, client: asyncio.Task[Any]) -> None:
        self._clients.pop(client, None)
        self._known.discard(client)

    async def _serve(self, client: Stream) -> None:
        while True:
            request = None
            try:
                async with asyncio.timeout(_NEXT_WITHIN_S):
                    head = await client.head()
                if not head:
                    return
                request = Request.parse(head)
                again = await self._answer(client, request)
            except NotGrantedError as error:
                again = request is not None and request.keeps_alive
                await _refuse(
                    client, request, error.status, str(error), keeps_alive=again, retry_after=error.retry_after
                )
            except (MessageError, NoProviderError) as error:
                again = isinstance(error, NoProviderError) and request is not None and request.keeps_alive
                await _refuse(client, request, error.status, str(error), keeps_alive=again)
            except _RefusedError as refused:
                again = not refused.closes and request is not None and request.keeps_alive
                await _refuse(client, request, refused.status, str(refused), keeps_alive=again)
            if not again:
                await _linger(client)
                return

    async def _answer(self, client: Stream, request: Request) -> bool:
        """Answer one request; return whether the connection can be used again. Raises what `_serve` tells the agent."""
        with Held(self._memory, BODY_BYTES) as body:
            refusal = self._refusal(request)
            await self._receive(client, request, body, refusal)
            if request.path in wires.HELLO:
                await client.write(written(b"HTTP/1.1 200 OK", [(b"content-length", b"0")]))
                return request.keeps_alive
            track = Track() if self._recording is None else self._recording.track(request, bytes(body.data))
            try:
                ways = await self._attempts(request, bytes(body.data))
                return await self._while_there(client, self._exchange(client, request, ways, track))
            except (NoProviderError, NotGrantedError) as error:
                track.refused(error.status, str(error))
                raise
            finally:
                await self._say_complaint()

    async def _say_complaint(self) -> None:
        """Say why a recording stops."""
        if self._recording is not None and (complaint := self._recording.complaint):
            self._recording.complaint = ""
            await asyncio.shield(asyncio.ensure_future(self._reports.note(complaint)))

    async def _attempts(self, request: Request, body: bytes) -> list[Attempt]:
        routes = wires.routes(request)
        try:
            return list(attempts(request, body, routes, self._servings))
        except NoProviderError as error:
            if any(route.metered for route in routes):
                await self._reports.trouble(Trouble(str(error), "", error.status, is_refusal=True))
            raise

    async def _exchange(self, client: Stream, request: Request, ways: Sequence[Attempt], track: Track) -> bool:
        """Send a request as soon as it may be sent. Raises NotGrantedError, and what Exchange raises."""
        common = (request, client, self._memory, self._reports)
        while True:
            try:
                async with self._granted(request, ways) as grant:
                    if grant.is_last_warning and not self._has_told:
                        self._has_told, ways = True, with_notice(ways)
                        await self._reports.note("the budget is nearly spent: the model is told so in this request")
                    return await Exchange(*common, outages=self._outages, track=track, grant=grant).run(ways)
            except AskAgainError as again:
                await asyncio.sleep(again.seconds)

    @contextlib.asynccontextmanager
    async def _granted(self, request: Request, ways: Sequence[Attempt]) -> AsyncIterator[Grant]:
        if self._grants is None or not ways[0].route.metered:
            yield Grant()
            return
        async with self._grants.granted(reservation(request, ways)) as grant:
            yield grant

    def _refusal(self, request: Request) -> _RefusedError | None:
        """Return why a request is not passed on; None when it is."""
        if request.path in wires.HELLO and request.method in ("GET", "HEAD"):
            return None
        if not self._is_known(request):
            return _RefusedError(401, "the key must be the execution's token, which is in BOATYARD_DOOR_TOKEN")
        if len(self._known) > _MAX_CLIENTS:  # those between this and what there is room for are told why
            return _RefusedError(503, f"more than {_MAX_CLIENTS} connections are open", closes=True)
        if request.value(b"upgrade"):
            return _RefusedError(426, "there are no WebSockets here: answers are streamed as server-sent events")
        if not wires.routes(request):
            return _RefusedError(404, f"{request.method} {request.path} is not passed on")
        return None

    def _is_known(self, request: Request) -> bool:
        """Return whether a request shows the token. If so, its connection keeps its place from now on."""
        shows = any(hmac.compare_digest(shown, self._token) for shown in wires.shown_tokens(request))
        if shows and (client := asyncio.current_task()) in self._clients:
            self._known.add(client)
        return shows

    async def _receive(self, client: Stream, request: Request, held: Held, refusal: _RefusedError | None) -> None:
        """Read a request's body; raise the refusal, if there is one, when the agent is ready to hear it.

        Raises _RefusedError, MessageError, OSError.
        """
        body = request.body()
        if (body.length or 0) > BODY_BYTES:
            raise _too_large()
        if b"100-continue" in request.tokens(b"expect"):
            if refusal is not None:  # the body may come after our refusal, or not
                raise _RefusedError(refusal.status, str(refusal), closes=True)
            await client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        received = 0
        async with asyncio.timeout(_BODY_WITHIN_S):
            async for data in client.pieces(body):
                received += len(data)
                if received > BODY_BYTES:
                    raise _too_large()
                if refusal is None and not held.add(data):
                    raise _RefusedError(503, "too much is being sent at once: try again", closes=True)
        if refusal is not None:
            raise refusal

    async def _while_there(self, client: Stream, work: Coroutine[Any, Any, bool]) -> bool:
        """Return what some work returns, which is cancelled when the client has gone."""
        working, gone = asyncio.ensure_future(work), asyncio.ensure_future(client.ended())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ConnectionResetError
            return working.result()
        finally:
            for task in (working, gone):
                task.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)


def _too_large() -> _RefusedError:
    return _RefusedError(413, f"a request may have {BODY_BYTES >> 20} MiB", closes=True)


async def _refuse(
    client: Stream,
    request: Request | None,
    status: int,
    text: str,
    *,
    keeps_alive: bool,
    retry_after: int | None = None,
) -> None:
    """Answer with an error in the form of the request's wire."""
    body = wires.error(ModelWire.RESPONSES if request is None else wires.spoken(request), status, text)
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 426:
        fields.append((b"upgrade", b"HTTP/1.1"))
    if retry_after is not None:
        fields.append((b"retry-after", b"%d" % retry_after))
    if not keeps_alive:
        fields.append((b"connection", b"close"))
    head = written(b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b"Error")), fields)
    await client.write(head if request is not None and request.method == "HEAD" else head + body)


async def _linger(client: Stream) -> None:
    """Let the client read our last answer: a connection that is closed while it still sends is reset."""
    if client.writer.can_write_eof():
        client.writer.write_eof()
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_LINGERS_S):
            while await client.read():
                pass
