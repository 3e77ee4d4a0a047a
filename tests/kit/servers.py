"""Real servers in this process, on a free port or a socket, with all the layers that a servicer has in production."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common.rpc.auth import Authenticator, SingleToken
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, RunningServer, start_server
from services.common.rpc.tls import ServerTls

TOKEN = "a-token-for-tests"


@asynccontextmanager
async def serving(
    *registrations: Registration,
    listen: str = "127.0.0.1:0",
    authenticator: Authenticator | None = None,
    draining: Draining | None = None,
    unary_limit_seconds: float = 60.0,
    reflection: bool = True,
    tls: ServerTls | None = None,
) -> AsyncIterator[RunningServer]:
    """Serve inside of the block; callers need TOKEN unless another authenticator is given."""
    server = await start_server(
        listen=listen,
        registrations=registrations,
        authenticator=authenticator or SingleToken(TOKEN, caller="test", reason="TOKEN_REQUIRED", hint="see TOKEN"),
        draining=draining or Draining(),
        unary_limit_seconds=unary_limit_seconds,
        reflection=reflection,
        tls=tls,
    )
    try:
        yield server
    finally:
        await server.stop(grace=0.2)
