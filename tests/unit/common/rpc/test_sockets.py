"""Servers at Unix sockets: on which paths, beside whom, and what a killed one leaves behind."""

import asyncio
import os
from pathlib import Path

import grpc
import pytest

from services.common.errors import StartError, Unavailable
from services.common.rpc.channel import open_channel
from services.common.rpc.sockets import CalledSocket, ServedSocket, socket_path
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo, EchoStub
from tests.unit.common.rpc.test_serving import address_of, service


@pytest.fixture
def socket(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/run/echo.sock"


@pytest.mark.parametrize("name", ["plain", "with spaces", "münchen", "100%41?a#b&c", "new\nline", "x" * 200])
async def test_a_path_may_be_long_and_have_any_character(name: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / name}/run/echo.sock"
    async with serving(Echo().registration(), listen=address) as server:
        assert server.address == address
        assert (tmp_path / name / "run").stat().st_mode & 0o777 == 0o700
        async with open_channel(address, TOKEN) as channel:
            assert await EchoStub(channel).unary(b"x") == b"x"
    assert [path.name for path in (tmp_path / name / "run").iterdir()] == ["echo.sock.lock"]


async def test_two_do_not_listen_at_one_socket(socket: str) -> None:
    async with serving(Echo().registration(), listen=socket):
        with pytest.raises(StartError, match=rf"cannot listen on {socket}: process {os.getpid()} does"):
            async with serving(Echo().registration(), listen=socket):
                pass
        async with open_channel(socket, TOKEN) as channel:
            assert await EchoStub(channel).unary(b"x") == b"x"


async def test_the_next_one_takes_over_the_socket_of_a_killed_one_and_its_callers(socket: str) -> None:
    async with service(socket) as first:
        await address_of(first)
        async with open_channel(socket, "t") as channel:
            assert await EchoStub(channel).unary(b"x") == b"x"
            first.kill()
            await first.wait()
            assert socket_path(socket).is_socket(), "a killed one removes nothing"
            async with service(socket) as second:
                assert await address_of(second) == socket
                assert await EchoStub(channel).unary(b"y", wait_for_ready=True) == b"y"
                second.terminate()
                assert await asyncio.wait_for(second.wait(), 10) == 0
    assert not socket_path(socket).exists()


async def test_where_others_can_enter_nobody_listens_and_nobody_is_called(socket: str) -> None:
    directory = socket_path(socket).parent
    async with serving(Echo().registration(), listen=socket):
        directory.chmod(0o711)
        with pytest.raises(StartError, match=f"chmod 700 {directory}"):
            open_channel(socket, TOKEN)
    with pytest.raises(StartError, match=f"chmod 700 {directory}"):
        async with serving(Echo().registration(), listen=socket):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_root_calls_anybodys_services_and_serves_in_its_own_directories_alone(socket: str) -> None:
    directory = socket_path(socket).parent
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, 1234, 1234)
    with pytest.raises(StartError, match=f"{directory} belongs to user 1234"):
        ServedSocket(socket)
    CalledSocket(socket).close()


async def test_nobody_there_is_unavailable_and_found_when_there(socket: str) -> None:
    with pytest.raises(Unavailable, match="nothing serves at unix:"):
        open_channel(socket, TOKEN)
    socket_path(socket).parent.mkdir(mode=0o700)
    async with open_channel(socket, TOKEN) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(channel).unary(b"x")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with serving(Echo().registration(), listen=socket):
            assert await EchoStub(channel).unary(b"x", wait_for_ready=True) == b"x"


async def test_a_closed_channel_keeps_nothing_open(socket: str) -> None:
    async with serving(Echo().registration(), listen=socket):
        before = descriptors_in(socket)
        async with open_channel(socket, TOKEN) as channel:
            assert descriptors_in(socket) == before + 1
            await channel.close()
        assert descriptors_in(socket) == before
    assert descriptors_in(socket) == 0


def descriptors_in(address: str) -> int:
    """Count this process's descriptors of a socket's directory."""
    directory = str(socket_path(address).parent)
    return sum(os.path.realpath(each) == directory for each in Path("/proc/self/fd").iterdir())
