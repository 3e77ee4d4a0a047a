"""An HTTP server that runs in the gateway's event loop, and ends with it.

It serves TLS with the gateway's certificate and, like the gRPC server, takes up a renewed certificate by itself.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from services.common.errors import StartError
from services.common.ports import AGAIN_SECONDS, is_taken
from services.common.rpc.tls import Followed, ServerTls, check_pair
from services.gateway.http.connections import BoundedConnection
from services.gateway.http.entrance import Entrance

_BACKLOG: Final = 128
_SHUTDOWN_SECONDS: Final = 2

log = structlog.get_logger()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the gateway."""
        yield


@contextlib.asynccontextmanager
async def http_server(app: ASGIApp, listen: str, tls: ServerTls | None) -> AsyncIterator[str]:
    """Serve `app` at `listen` (host:port; port 0 takes a free port) inside the block; yield the actual address.

    A port at which another program listens is served as soon as it is free. Raises StartError when it cannot be
    listened at for any other reason, or the certificate cannot be used.
    """
    listener = None if is_taken(listen) else _listener(listen)
    config = uvicorn.Config(
        app,
        loop="none",
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    begin = partial(BoundedConnection, config, server.server_state, {})
    context = None if tls is None else _following_context(tls)
    serving = asyncio.create_task(server.serve(sockets=[]), name="http")
    # A client that connects before that has started waits in the socket's backlog.
    entering = asyncio.create_task(_let_in(listen, listener, lambda free: Entrance(free, begin, context)))
    try:
        yield f"{listen.rpartition(':')[0]}:{listener.getsockname()[1]}" if listener else listen
    finally:
        entering.cancel()
        server.should_exit = True
        await asyncio.gather(entering, return_exceptions=True)
        if listener is not None:
            listener.close()
        await serving


async def _let_in(listen: str, listener: socket.socket | None, entrance: Callable[[socket.socket], Entrance]) -> None:
    """Let connections in until cancelled, at a port that another program listens at as soon as it is free."""
    if listener is None:
        log.warning(
            "another program listens at the port of HTTP: nothing is served there until it is free", address=listen
        )
    while listener is None:
        await asyncio.sleep(AGAIN_SECONDS)
        with contextlib.suppress(StartError):
            listener = _listener(listen)
    with entrance(listener).opened():
        await asyncio.Event().wait()


def _listener(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StartError(
            f"cannot listen on {listen} for HTTP ({error.strerror}): is another service running there?"
            " BOATYARD_GATEWAY_HTTP_LISTEN names another address"
        ) from error


def _following_context(tls: ServerTls) -> ssl.SSLContext:
    """Return the context to serve with. Raises StartError when the files are missing or do not fit together.

    At each new connection the files are checked for changes; until the new ones fit together, the old ones stay in use.
    """
    files = Followed(tls, lambda: _read_context(tls))
    context = files.now

    def follow(connection: ssl.SSLObject | ssl.SSLSocket, *_: Any) -> None:  # noqa: ANN401 - OpenSSL's callback
        files.look()
        connection.context = files.now

    context.sni_callback = follow
    return context


def _read_context(tls: ServerTls) -> ssl.SSLContext:
    check_pair(tls.certificate, tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"cannot read the clients' CA in {tls.client_ca}: {error}") from None
    return context
