"""Services of a cell that have a port by a setting prove themselves there by the cell's own certificate."""

from pathlib import Path

import grpc
import pytest

from services.common.home import Home
from services.common.rpc.channel import open_channel
from services.common.rpc.nodes import node_tls, open_node_channel
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo, EchoStub

PORT = "127.0.0.1:0"


async def test_at_a_port_only_who_has_the_cells_key_hears_its_token(tmp_path: Path) -> None:
    ours, others = Home(tmp_path / "ours"), Home(tmp_path / "others")
    async with serving(Echo().registration(), listen=PORT, tls=node_tls(ours, PORT)) as server:
        async with open_node_channel(ours, server.address, TOKEN) as channel:
            assert await EchoStub(channel).unary(b"x") == b"x"
        for stranger in (open_node_channel(others, server.address, TOKEN), open_channel(server.address, TOKEN)):
            async with stranger:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await EchoStub(stranger).unary(b"x", timeout=2)
                assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def test_at_a_socket_there_is_no_certificate(tmp_path: Path) -> None:
    home = Home(tmp_path)

    assert node_tls(home, home.socket("git")) is None
    assert list(tmp_path.iterdir()) == []
