"""The HTTP server itself: with a certificate, with a renewed one, and where its port is taken."""

import asyncio
import http.client
import ssl
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from services.common.errors import StartError
from services.common.rpc.tls import ServerTls
from services.gateway.http.server import http_server
from tests.kit.certificates import Authority

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


async def test_a_port_that_is_taken_is_named_with_the_setting_that_moves_it() -> None:
    async with http_server(APP, "127.0.0.1:0", None) as address:
        with pytest.raises(StartError, match=f"{address}.*BOATYARD_GATEWAY_HTTP_LISTEN"):
            async with http_server(APP, address, None):
                pass
