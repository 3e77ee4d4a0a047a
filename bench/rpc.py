"""A no-op RPC through everything the house puts around it, against a bare grpc.aio echo, in one run.

Both servers are processes of their own, logging included; rounds alternate, so that the machine's other work hits
both. Prints calls a second and the ratio of the medians (aim: 0.6).
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from services.common import program
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.channel import open_channel
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, serve

METHOD = "/bench.Echo/Echo"
TOKEN = "a-token-for-the-bench"
ROUNDS, CALLS = 9, 1000
AIM = 0.6


async def echo(request: bytes, _context: Any) -> bytes:
    return request


def add(_servicer: object, server: grpc.aio.Server) -> None:
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))


async def serve_bare() -> None:
    server = grpc.aio.server()
    add(None, server)
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


async def serve_ours() -> None:
    await serve(
        listen="127.0.0.1:0",
        registrations=[Registration("bench.Echo", add, None)],
        authenticator=cell_authenticator(TOKEN),
        draining=Draining(),
        on_started=lambda address: print(address, flush=True),
    )


async def calls_a_second(call: Callable[[bytes], Coroutine[Any, Any, bytes]], in_flight: int) -> float:
    async def some() -> None:
        for _ in range(CALLS // in_flight):
            await call(b"x")

    started = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(in_flight)))
    return CALLS / (time.perf_counter() - started)


async def measure(bare_address: str, our_address: str) -> None:
    async with grpc.aio.insecure_channel(bare_address) as bare_channel, open_channel(our_address, TOKEN) as channel:
        bare, ours = bare_channel.unary_unary(METHOD), channel.unary_unary(METHOD)
        for in_flight in (1, 20):
            rates: dict[str, list[float]] = {"bare": [], "ours": []}
            for number in range(ROUNDS + 1):
                for name, call in (("bare", bare), ("ours", ours)):
                    rate = await calls_a_second(call, in_flight)
                    if number:  # the first round warms up
                        rates[name].append(rate)
            medians = {name: statistics.median(found) for name, found in rates.items()}
            ratio = medians["ours"] / medians["bare"]
            print(
                f"no-op RPC, {in_flight} in flight: bare {medians['bare']:.0f}/s, ours {medians['ours']:.0f}/s, "
                f"ratio {ratio:.2f} (aim {AIM})"
            )


def start(kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.rpc", kind]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def main() -> None:
    servers = [start(kind) for kind in ("bare", "ours")]
    try:
        addresses = [server.stdout.readline().strip() for server in servers if server.stdout]
        asyncio.run(measure(*addresses))
    finally:
        for server in servers:
            server.terminate()
            server.communicate()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare"]:
            asyncio.run(serve_bare())
        case ["ours"]:
            program.run("bench", serve_ours)
        case _:
            main()
