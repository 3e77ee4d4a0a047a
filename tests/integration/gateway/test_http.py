"""The HTTP server itself: with a certificate, with a renewed one, where its port is taken, under idle connections."""

import asyncio
import http.client
import select
import ssl
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from socket import create_connection, socket

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from services.common.errors import StartError
from services.common.ports import is_taken
from services.common.rpc.tls import ServerTls
from services.gateway.http import connections, entrance
from services.gateway.http.server import http_server
from tests.kit.certificates import Authority
from tests.kit.metrics import get

APP = PlainTextResponse("here\n")


def ask(address: str, context: ssl.SSLContext) -> tuple[str, int]:
    """Return what is answered, and the serial number of the certificate that is shown."""
    connection = http.client.HTTPSConnection(address, timeout=30, context=context)
    try:
        connection.connect()
        shown = connection.sock.getpeercert()
        connection.request("GET", "/")
        return connection.getresponse().read().decode(), int(shown["serialNumber"], 16)
    finally:
        connection.close()


async def test_it_speaks_tls_and_follows_a_renewed_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("127.0.0.1", into="server")
    believing = ssl.create_default_context(cafile=authority.file)
    async with http_server(APP, "127.0.0.1:0", ServerTls(pair.certificate, pair.key)) as address:
        text, first = await asyncio.to_thread(ask, address, believing)
        assert text == "here\n"
        authority.issue("127.0.0.1", into="server")
        _, second = await asyncio.to_thread(ask, address, believing)
        assert second != first
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(ask, address, ssl.create_default_context())
        pair.key.write_text("half a key")
        _, third = await asyncio.to_thread(ask, address, believing)
        assert third == second, "what does not fit is not served"


async def test_who_shows_no_certificate_is_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, client = authority.issue("127.0.0.1", into="server"), authority.issue("people", into="client")
    believing = ssl.create_default_context(cafile=authority.file)
    tls = ServerTls(server.certificate, server.key, authority.file)
    async with http_server(APP, "127.0.0.1:0", tls) as address:
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            await asyncio.to_thread(ask, address, believing)
        believing.load_cert_chain(client.certificate, client.key)
        text, _ = await asyncio.to_thread(ask, address, believing)
        assert text == "here\n"


async def test_a_port_that_is_taken_is_served_as_soon_as_it_is_free() -> None:
    async with AsyncExitStack() as stack:
        async with http_server(APP, "127.0.0.1:0", None) as address:
            assert await stack.enter_async_context(http_server(APP, address, None)) == address
            async with http_server(APP, address, None):
                pass  # it ends, though it never served
        async with asyncio.timeout(30):
            while not is_taken(address):
                await asyncio.sleep(0.05)
        assert (await asyncio.to_thread(get, address, "/")) == (200, "here\n")


async def test_an_address_of_another_machine_is_named_with_the_setting_that_moves_it() -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:1234.*BOATYARD_GATEWAY_HTTP_LISTEN"):
        async with http_server(APP, "192.0.2.1:1234", None):
            pass


@contextmanager
def connected(address: str, count: int, come_from: str = "127.0.0.1") -> Iterator[list[socket]]:
    host, _, port = address.rpartition(":")
    sockets = [create_connection((host, int(port)), timeout=20, source_address=(come_from, 0)) for _ in range(count)]
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


async def test_idle_connections_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of them once closed the page of the gateway's health."""
    most = 30
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", most)
    async with http_server(APP, "127.0.0.1:0", None) as address:

        def flood() -> tuple[tuple[int, str], bytes]:
            with connected(address, most + 50) as idle:
                return get(address, "/"), idle[0].recv(1)

        answer, oldest = await asyncio.to_thread(flood)
    assert answer == (200, "here\n")
    assert oldest == b"", "the oldest one was closed"


async def test_the_address_with_the_most_connections_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)
    async with http_server(APP, "127.0.0.1:0", None) as address:

        def flood() -> list[bytes]:
            with connected(address, 2) as modest:
                ask_on(modest[0])
                with connected(address, 20, come_from="127.0.0.2") as greedy:
                    assert greedy[0].recv(1) == b""
                    return [ask_on(each) for each in modest]

        answers = await asyncio.to_thread(flood)
    assert all(answer.endswith(b"here\n") for answer in answers)


async def test_who_has_shown_a_token_is_not_the_first_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 4)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][connections.KNOWN] = True
        await APP(scope, receive, send)

    async with http_server(app, "127.0.0.1:0", None) as address:

        def flood() -> bytes:
            with connected(address, 1) as (known,):
                ask_on(known)
                with connected(address, 20) as idle:
                    assert idle[0].recv(1) == b""
                    return ask_on(known)

        assert (await asyncio.to_thread(flood)).endswith(b"here\n")


def ask_on(connection: socket) -> bytes:
    """Return all that is answered to a request, without closing the connection."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = b""
    while not answer.endswith(b"here\n") and (part := connection.recv(1 << 16)):
        answer += part
    return answer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def tls(authority: Authority) -> ServerTls:
    pair = authority.issue("127.0.0.1", into="server")
    return ServerTls(pair.certificate, pair.key)


async def test_handshakes_that_do_not_happen_make_room_for_others(
    authority: Authority, tls: ServerTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "MOST_WAITING", 8)
    believing = ssl.create_default_context(cafile=authority.file)
    async with http_server(APP, "127.0.0.1:0", tls) as address:

        def flood() -> tuple[str, int]:
            with connected(address, 30, come_from="127.0.0.2") as silent:
                text, _ = ask(address, believing)
                return text, len(select.select(silent, [], [], 0)[0])

        text, closed = await asyncio.to_thread(flood)
    assert text == "here\n"
    assert closed >= 30 - 8


async def test_a_handshake_is_not_waited_for_long(tls: ServerTls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "HANDSHAKE_SECONDS", 0.1)
    async with http_server(APP, "127.0.0.1:0", tls) as address:

        def rest() -> bytes:
            with connected(address, 1) as (silent,):
                return silent.recv(1)

        assert await asyncio.to_thread(rest) == b""


async def test_connections_come_in_at_a_pace_and_addresses_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "CONNECTIONS_AT_ONCE", 1)
    monkeypatch.setattr(entrance, "CONNECTIONS_PER_SECOND", 10)
    async with http_server(APP, "127.0.0.1:0", None) as address:

        def flood() -> int:
            with connected(address, 20, come_from="127.0.0.2") as greedy, connected(address, 1) as (modest,):
                for each in greedy:
                    each.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                ask_on(modest)
                answered, _, _ = select.select(greedy, [], [], 0)
                return len(answered)

        assert await asyncio.to_thread(flood) <= 10


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /"])
async def test_a_request_whose_headers_do_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
    async with http_server(APP, "127.0.0.1:0", None) as address:

        def rest() -> bytes:
            with connected(address, 1) as (slow,):
                slow.sendall(sent)
                parts = []
                while part := slow.recv(1 << 16):
                    parts.append(part)
                return b"".join(parts)

        answered = await asyncio.to_thread(rest)
    assert answered.endswith(b"here\n") == (b"\r\n\r\n" in sent)


async def test_an_answer_that_nobody_reads_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.1)
    huge = PlainTextResponse("x" * (64 << 20))
    async with http_server(huge, "127.0.0.1:0", None) as address:

        def received() -> int:
            with connected(address, 1) as (slow,):
                slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                ended.wait(20)
                size = 0
                try:
                    while part := slow.recv(1 << 20):
                        size += len(part)
                except ConnectionResetError:
                    pass
                return size

        ended = threading.Event()
        asyncio.get_running_loop().call_later(0.5, ended.set)
        assert await asyncio.to_thread(received) < 64 << 20
