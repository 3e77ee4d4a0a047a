"""An HTTP server in the gateway's own event loop, that ends with it.

It serves TLS by the gateway's own certificate, which is followed when it is renewed, as gRPC's server does.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from services.common.errors import StartError
from services.common.rpc.tls import Followed, ServerTls, check_pair

_AT_ONCE: Final = 100  # more are answered with 503
_WAITING: Final = 128
_END_SECONDS: Final = 2


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the gateway."""
        yield


@contextlib.asynccontextmanager
async def http_server(app: ASGIApp, listen: str, tls: ServerTls | None) -> AsyncIterator[str]:
    """Serve `app` at `listen` (host:port; port 0 takes any free one) as long as inside; give the real address.

    Raises StartError when the port is taken, or the certificate cannot be used.
    """
    listener = _listener(listen)
    config = uvicorn.Config(
        app,
        loop="none",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=_END_SECONDS,
        ssl_context_factory=None if tls is None else _always(_context_of(tls)),
    )
    server = _Server(config)
    # Whoever connects before the server has begun waits at the socket.
    serving = asyncio.create_task(server.serve([listener]), name="http")
    try:
        yield f"{listen.rpartition(':')[0]}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def _always(context: ssl.SSLContext) -> Callable[..., ssl.SSLContext]:
    return lambda *_: context


def _listener(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=_WAITING)
    except OSError as error:
        raise StartError(
            f"cannot listen on {listen} for HTTP ({error.strerror}): is another service running there?"
            " BOATYARD_GATEWAY_HTTP_LISTEN names another address"
        ) from error


def _context_of(tls: ServerTls) -> ssl.SSLContext:
    """Return the context to serve with. Raises StartError where the files are not there or do not fit.

    At each new connection it is asked whether they have changed; until the new ones fit, the old ones serve on.
    """
    files = Followed(tls, lambda: _read_context(tls))
    first = files.now

    def follow(connection: ssl.SSLObject | ssl.SSLSocket, *_: Any) -> None:  # noqa: ANN401 - OpenSSL's callback
        files.look()
        connection.context = files.now

    first.sni_callback = follow
    return first


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
