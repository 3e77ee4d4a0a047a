"""TLS between real servers and channels: who is believed, who is let in, and how a new certificate comes into use."""

from pathlib import Path

import grpc
import pytest

from services.common.errors import StartError
from services.common.rpc.channel import open_channel
from services.common.rpc.tls import ClientTls, ServerTls
from tests.kit.certificates import Authority, Files
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo, EchoStub


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def others(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "others")


@pytest.fixture
def server(ours: Authority) -> Files:
    return ours.issue("127.0.0.1", into="server")


async def echoed(address: str, tls: ClientTls | None) -> bool:
    """Say whether a call comes through; a connection that does not come to be is UNAVAILABLE."""
    async with open_channel(address, TOKEN, tls=tls) as channel:
        try:
            return await EchoStub(channel).unary(b"x", timeout=20) == b"x"
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


async def test_only_who_believes_the_ca_calls(ours: Authority, others: Authority, server: Files) -> None:
    async with serving(Echo().registration(), tls=ServerTls(server.certificate, server.key)) as running:
        assert await echoed(running.address, ClientTls(ours.file))
        assert not await echoed(running.address, ClientTls(others.file))
        assert not await echoed(running.address, None), "in the clear"


async def test_the_name_must_be_the_certificates(ours: Authority) -> None:
    named = ours.issue("gateway.example", into="named")
    async with serving(Echo().registration(), tls=ServerTls(named.certificate, named.key)) as running:
        assert not await echoed(running.address, ClientTls(ours.file))
        assert await echoed(running.address, ClientTls(ours.file, server_name="gateway.example"))


async def test_clients_show_a_certificate_where_they_are_asked(
    ours: Authority, others: Authority, server: Files
) -> None:
    mine, foreign = ours.issue("client", into="client"), others.issue("client", into="client")
    tls = ServerTls(server.certificate, server.key, client_ca=ours.file)
    async with serving(Echo().registration(), tls=tls) as running:
        assert await echoed(running.address, ClientTls(ours.file, mine.certificate, mine.key))
        assert not await echoed(running.address, ClientTls(ours.file, foreign.certificate, foreign.key))
        assert not await echoed(running.address, ClientTls(ours.file))


async def test_a_new_certificate_comes_into_use_and_half_of_one_does_not(
    ours: Authority, others: Authority, server: Files
) -> None:
    async with serving(Echo().registration(), tls=ServerTls(server.certificate, server.key)) as running:
        assert await echoed(running.address, ClientTls(ours.file))
        renewed = others.issue("127.0.0.1", into="server")
        renewed.certificate.rename(server.certificate)
        assert await echoed(running.address, ClientTls(ours.file)), "its key is not there yet"
        renewed.key.rename(server.key)
        assert await echoed(running.address, ClientTls(others.file))
        assert not await echoed(running.address, ClientTls(ours.file))


def test_files_that_are_not_right_are_named_at_the_start(ours: Authority, server: Files, tmp_path: Path) -> None:
    other = ours.issue("127.0.0.1", into="other")
    nothing = tmp_path / "nothing.pem"
    for tls in (
        ServerTls(server.certificate, other.key),
        ServerTls(nothing, server.key),
        ServerTls(server.certificate, server.key, nothing),
        ClientTls(nothing),
        ClientTls(ours.file, server.certificate, other.key),
    ):
        with pytest.raises(StartError) as refused:
            tls.credentials()
        assert str(tmp_path) in str(refused.value)
