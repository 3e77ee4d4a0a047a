"""Echo servers: `python -m bench.kit.echo bare` or `ours`. Each prints its address."""

import asyncio
import sys
from typing import Any

import grpc

from services.common import program
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, serve

METHOD = "/bench.Echo/Echo"
TOKEN = "a-token-for-the-bench"


async def echo(request: bytes, _context: Any) -> bytes:
    return request


def add(_servicer: object, server: grpc.aio.Server) -> None:
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))


async def serve_bare() -> None:
    """Serve the bare handler."""
    server = grpc.aio.server()
    add(None, server)
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


async def serve_ours() -> None:
    """Serve the handler with everything that a service of ours has around it."""
    await serve(
        listen="127.0.0.1:0",
        registrations=[Registration("bench.Echo", add, None)],
        authenticator=cell_authenticator(TOKEN),
        draining=Draining(),
        on_started=lambda address: print(address, flush=True),
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare"]:
            asyncio.run(serve_bare())
        case ["ours"]:
            program.run("bench", serve_ours)
        case _:
            sys.exit(__doc__)
