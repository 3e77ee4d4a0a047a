"""Connections to a server's port: whose are ended when there are too many."""

import asyncio
import os
import select
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from socket import create_connection, create_server, socket

import grpc
import pytest

from services.common.rpc import connections
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY
from tests.kit.servers import serving
from tests.unit.common.rpc.echo import Echo, EchoStub
from tests.unit.common.rpc.test_bounds import Guests

FEW = 4


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(connections, "STRANGERS_OF_AN_ADDRESS", FEW)
    monkeypatch.setattr(connections, "OF_A_CALLER", FEW)


@contextmanager
def connected(address: str, count: int, come_from: str) -> Iterator[list[socket]]:
    host, _, port = address.rpartition(":")
    sockets = [create_connection((host, int(port)), timeout=20, source_address=(come_from, 0)) for _ in range(count)]
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


@asynccontextmanager
async def caller(address: str, token: str) -> AsyncIterator[EchoStub]:
    """Yield a stub with a connection of its own, on which the token has been shown."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = EchoStub(channel)
        await stub.unary(b"a", metadata=shown(token))
        yield stub


def shown(token: str) -> tuple[tuple[str, str]]:
    return ((AUTHORIZATION_METADATA_KEY, f"Bearer {token}"),)


def ended(sockets: list[socket]) -> list[socket]:
    """Return those that the server has closed."""
    readable, _, _ = select.select(sockets, [], [], 0)
    return [each for each in readable if not received(each)]


def received(connection: socket) -> bytes:
    """Return what comes before the end, which is empty at the end alone: gRPC begins with its settings."""
    connection.setblocking(False)
    try:
        while part := connection.recv(1 << 16):
            data = part
    except BlockingIOError:
        return data
    except ConnectionResetError:
        pass
    return b""


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.01)


async def test_of_an_address_those_are_ended_on_which_nobody_is_known() -> None:
    async with (
        serving(Echo().registration(), authenticator=Guests()) as server,
        caller(server.address, "guest") as known,
    ):
        with connected(server.address, FEW, "127.0.0.3") as others:
            with connected(server.address, 2 * FEW, "127.0.0.2") as flood:
                await until(lambda: len(ended(flood)) == FEW)
                assert not ended(others)
            with connected(server.address, 2 * FEW, "127.0.0.1") as flood:  # where the known caller is, too
                await until(lambda: len(ended(flood)) == FEW)
                assert await known.unary(b"b", metadata=shown("guest")) == b"b"


async def test_of_all_strangers_the_oldest_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STRANGERS", FEW)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 1e6)  # it is the test that looks
    watched = connections.Connections()
    async with serving(Echo().registration(), authenticator=Guests()) as server:
        port = int(server.address.rpartition(":")[2])
        with connected(server.address, FEW, "127.0.0.2") as old:
            await until(lambda: len(select.select(old, [], [], 0)[0]) == FEW)  # accepted: gRPC has sent its settings
            watched.look(port)
            with connected(server.address, 2, "127.0.0.3") as new:
                await until(lambda: len(select.select(new, [], [], 0)[0]) == 2)
                watched.look(port)
                await until(lambda: len(ended(old)) == 2)
                assert not ended(new)


async def test_a_known_caller_has_a_share_of_its_own() -> None:
    async with (
        serving(Echo().registration(), authenticator=Guests()) as server,
        caller(server.address, "guest-1") as modest,
        caller(server.address, "guest-2") as oldest,
    ):
        stream = oldest.both(metadata=shown("guest-2"))
        await stream.write(b"a")
        assert await stream.read() == b"a"
        async with AsyncExitStack() as stack:
            for _ in range(FEW):
                await stack.enter_async_context(caller(server.address, "guest-2"))
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
            assert await modest.unary(b"b", metadata=shown("guest-1")) == b"b"


async def test_it_is_seen_too_when_no_more_files_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> Iterator[object]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(connections.Path, "iterdir", refuse)
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (1024, 4096))
    async with serving(Echo().registration(), authenticator=Guests()) as server:
        with connected(server.address, 2 * FEW, "127.0.0.2") as flood:
            await until(lambda: len(ended(flood)) == FEW)


def test_one_that_grpc_closes_meanwhile_stops_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    with create_server(("127.0.0.1", 0)) as listener, create_connection(listener.getsockname()):
        descriptor = listener.accept()[0].detach()

        def judge(*_: int) -> str:
            os.close(descriptor)  # as gRPC's threads may, at any moment
            return "judged"

        monkeypatch.setattr(connections, "_peer_of", judge)
        connections._end(descriptor, 1, "judged")
