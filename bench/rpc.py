"""A no-op RPC through everything that our services put around it, against a bare grpc.aio echo, in one run.

Both servers are processes of their own, logging included; rounds alternate, so that the machine's other work affects
both. Reports calls per second, one after another and 20 at once, and the ratio of the medians (wanted: >= 0.6).

    python -m bench.rpc --rounds 3
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import grpc

from bench.kit.echo import METHOD, TOKEN
from bench.kit.figures import at_least
from bench.kit.options import options
from services.common.rpc.channel import open_channel

AIM = 0.6

Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


async def calls_a_second(call: Call, calls: int, in_flight: int) -> float:
    async def some() -> None:
        for _ in range(calls // in_flight):
            await call(b"x")

    started = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(in_flight)))
    return calls / (time.perf_counter() - started)


async def measure(bare_address: str, our_address: str, rounds: int, calls: int) -> None:
    async with grpc.aio.insecure_channel(bare_address) as bare_channel, open_channel(our_address, TOKEN) as channel:
        bare_call: Call = bare_channel.unary_unary(METHOD)
        our_call: Call = channel.unary_unary(METHOD)
        called = {"bare": bare_call, "ours": our_call}
        for in_flight in (1, 20):
            rates: dict[str, list[float]] = {name: [] for name in called}
            for number in range(rounds + 1):
                for name, call in called.items():
                    rate = await calls_a_second(call, calls, in_flight)
                    if number:  # the first round warms up
                        rates[name].append(rate)
            bare, ours = (statistics.median(found) for found in rates.values())
            print(
                f"no-op RPC, {in_flight} in flight: {ours:.0f}/s, bare {bare:.0f}/s,"
                f" ratio {ours / bare:.2f} {at_least(ours / bare, AIM)}"
            )


@contextmanager
def echoing(kind: str) -> Iterator[str]:
    """Run a server inside the block; yield its address."""
    command = [sys.executable, "-m", "bench.kit.echo", kind]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.communicate()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of each")
    parser.add_argument("--calls", type=int, default=1000, help="in a round")
    wanted = parser.parse_args()
    with echoing("bare") as bare, echoing("ours") as ours:
        asyncio.run(measure(bare, ours, wanted.rounds, wanted.calls))


if __name__ == "__main__":
    main()
