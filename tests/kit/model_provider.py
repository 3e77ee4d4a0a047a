"""Providers of models as the tests have them: a server of each wire, with another implementation of HTTP than ours."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import h11

Events = Sequence[tuple[str, dict]]


@dataclass
class Asked:
    """A request that arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Reply:
    """An answer. Of its pieces, only the first `cut` are sent before the connection is closed; None: all of them."""

    pieces: Sequence[bytes] = ()
    status: int = 200
    type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: bool = False
    is_silent: bool = False
    """Whether nothing is said until the client has gone."""
    gate: asyncio.Event | None = None
    """What it waits for before the last piece."""


def messages(text: str = "Hello.", *, message_id: str = "msg_1", model: str = "claude-sonnet-5-5") -> Reply:
    """A streamed answer of the Messages API, with all classes of tokens."""
    usage = {"input_tokens": 11, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 50, "output_tokens": 1}
    usage["cache_creation"] = {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30}
    start = {"id": message_id, "type": "message", "role": "assistant", "content": [], "model": model}
    start |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    events = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}} for part in text),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 42}},
        {"type": "message_stop"},
    ]
    return sse([(event["type"], event) for event in events])


def message(*, message_id: str = "msg_2", model: str = "claude-sonnet-5-5") -> Reply:
    """An answer of the Messages API that is not streamed."""
    usage = {"input_tokens": 11, "output_tokens": 42, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    body = {"id": message_id, "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn"}
    body |= {"content": [{"type": "text", "text": "Hello."}], "stop_sequence": None, "usage": usage}
    return Reply([json.dumps(body).encode()], length=True, headers={"request-id": "req_1"})


def sse(events: Events) -> Reply:
    """A stream of events."""
    pieces = [f"event: {name}\ndata: {json.dumps(event)}\n\n".encode() for name, event in events]
    return Reply(pieces, type="text/event-stream; charset=utf-8")


class ProviderServer:
    """A provider that answers each request with the next of its replies, and the last one again and again."""

    def __init__(self, *replies: Reply | Callable[[Asked], Reply]) -> None:
        self.replies = list(replies)
        self.asked: list[Asked] = []
        self.connections = 0
        self.closes = False
        """Whether each connection is closed after one answer, without a word before."""
        self.says_between = b""
        """What it says after each answer, unasked."""
        self.said_between = asyncio.Event()
        self.lost = asyncio.Event()
        """Set when a client went away before it had its answer."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._serve_one(connection, reader, writer):
                connection.start_next_cycle()
        except (OSError, h11.RemoteProtocolError):
            self.lost.set()
        finally:
            writer.close()

    async def _serve_one(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        request, body = None, b""
        while True:
            match event := connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                case h11.Request():
                    request = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    break
                case _:
                    return False
        headers = {name.decode(): value.decode() for name, value in request.headers}
        asked = Asked(request.method.decode(), request.target.decode(), headers, body)
        self.asked.append(asked)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        reply = reply if isinstance(reply, Reply) else reply(asked)
        if reply.is_silent:
            await reader.read(1)
            return False
        pieces = [] if asked.method == "HEAD" else reply.pieces
        framing = {"content-length": str(sum(map(len, pieces)))} if reply.length else {"transfer-encoding": "chunked"}
        head = [("content-type", reply.type), *reply.headers.items(), *framing.items()]
        writer.write(connection.send(h11.Response(status_code=reply.status, headers=head)))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            for number, piece in enumerate(pieces):
                if number == reply.cut:
                    return False
                if reply.gate is not None and number == len(pieces) - 1:
                    await asyncio.wait(
                        [gone, waiting := asyncio.ensure_future(reply.gate.wait())], return_when="FIRST_COMPLETED"
                    )
                    waiting.cancel()
                    if gone.done():
                        self.lost.set()
                        return False
                writer.write(connection.send(h11.Data(data=piece)))
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(connection.send(h11.EndOfMessage()))
            await writer.drain()
            if self.says_between:
                await asyncio.sleep(0.01)  # so that it does not come with the answer
                writer.write(self.says_between)
                await writer.drain()
                self.said_between.set()
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        return connection.our_state is h11.DONE and not self.closes


@contextlib.asynccontextmanager
async def providing(
    *replies: Reply | Callable[[Asked], Reply], tls: ssl.SSLContext | None = None
) -> AsyncIterator[ProviderServer]:
    """Run a provider on loopback."""
    provider = ProviderServer(*replies)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=tls)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
        await server.wait_closed()


@contextlib.contextmanager
def served(*replies: Reply | Callable[[Asked], Reply]) -> Iterator[str]:
    """Run a provider on loopback in a thread of its own, for tests without an event loop; yield its URL."""
    loop, ready, urls = asyncio.new_event_loop(), threading.Event(), []
    done = asyncio.Event()

    async def serve() -> None:
        async with providing(*replies) as provider:
            urls.append(provider.url)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(timeout=30)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(timeout=30)
        loop.close()
