"""A model's answer through the door of an execution, against the provider directly, in one run.

The provider is a process of its own, and the door is forked as a runner forks it. Requests at both alternate, so that
the machine's other work affects both. Reports the time to an answer's first event, how fast answers come whose provider
pauses for 20 ms after each event, as models do, and what memory the door has of its own.

    python -m bench.door --streams 200
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.kit.figures import at_least, at_most
from bench.kit.options import options
from bench.kit.processes import own_mb
from services.agent.providers import ModelProvider, ModelWire
from services.execution.door import child
from services.execution.door.child import ModelDoor

ADDED_MS, THROUGHPUT, MEMORY_MB = 1.0, 0.95, 6.0
BODY = b'{"model": "m", "messages": []}'


class Client:
    """One connection to a provider, or to a door in front of it."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self, query: str = "") -> tuple[float, float, int]:
        """Make a request; return the seconds to its first event and to its end, and the bytes of the answer."""
        head = f"POST /v1/messages{query} HTTP/1.1\r\nhost: x\r\nx-api-key: {self._token}\r\n"
        began = time.perf_counter()
        self._writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
        data = await self._reader.readuntil(b"message_start")
        first, size, tail = time.perf_counter() - began, len(data), b""
        while not tail.endswith(b"0\r\n\r\n"):
            data = await self._reader.read(65536)
            assert data, "the connection was closed before the answer's end"
            size, tail = size + len(data), (tail + data)[-5:]
        return first, time.perf_counter() - began, size

    def close(self) -> None:
        self._writer.close()


async def latency(direct: Client, through: Client, requests: int) -> None:
    times: dict[str, list[float]] = {"directly": [], "through the door": []}
    for number in range(requests + 10):
        for name, client in zip(times, (direct, through), strict=True):
            first, _, _ = await client.ask("?events=1&pause=0")
            if number >= 10:  # the first ones warm up
                times[name].append(first * 1000)
    p50 = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        print(f"first event {name}: p50 {p50[name]:.2f} ms, p99 {statistics.quantiles(found, n=100)[98]:.2f} ms")
    added = p50["through the door"] - p50["directly"]
    print(f"added by the door: p50 {added:.2f} ms {at_most(added, ADDED_MS)}")


async def rate(clients: list[Client]) -> float:
    """Return the events a second of one answer at each client, all at once."""
    began = time.perf_counter()
    answers = await asyncio.gather(*(client.ask() for client in clients))
    return sum(size for _, _, size in answers) / (time.perf_counter() - began)


async def throughput(ports: tuple[int, int], token: str, streams: int, rounds: int) -> None:
    rates: list[list[float]] = [[], []]
    sets = [[Client(port, token) for _ in range(streams)] for port in ports]
    for clients in sets:
        for client in clients:
            await client.open()
    for _ in range(rounds):
        for found, clients in zip(rates, sets, strict=True):
            found.append(await rate(clients) / 1e6)
    direct, ours = map(statistics.median, rates)
    print(
        f"{streams} streams: {ours:.2f} MB/s, directly {direct:.2f} MB/s, ratio {ours / direct:.2f}"
        f" {at_least(ours / direct, THROUGHPUT)}"
    )
    for client in (one for clients in sets for one in clients):
        client.close()


@contextmanager
def providing(events: int) -> Iterator[int]:
    command = [sys.executable, "-m", "bench.kit.model_provider", str(events), "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def measure(provider: int, door: ModelDoor, requests: int, streams: int, rounds: int) -> None:
    told = {name: value.decode() for name, value in door.variables({}).items()}
    port, token = int(told["BOATYARD_DOOR_URL"].rpartition(":")[2]), told["BOATYARD_DOOR_TOKEN"]
    assert door.reports is not None and door.pid is not None  # noqa: PT018 - it has been started
    reports = door.reports
    asyncio.get_running_loop().add_reader(reports, lambda: os.read(reports, 65536))  # as its runner would
    direct, through = Client(provider, token), Client(port, token)
    for client in (direct, through):
        await client.open()
    await latency(direct, through, requests)
    mine = own_mb(door.pid)
    print(f"memory of an execution's door: {mine:.1f} MB {at_most(mine, MEMORY_MB)}")
    await throughput((provider, port), token, streams, rounds)
    print(f"memory of the door after {streams} streams at once: {own_mb(door.pid):.1f} MB")
    direct.close()
    through.close()
    os.kill(door.pid, 9)


def main() -> None:
    """Measure, and print the figures."""
    parser = options(__doc__)
    parser.add_argument("--requests", type=int, default=500, help="requests one after another")
    parser.add_argument("--streams", type=int, default=200, help="answers at once")
    parser.add_argument("--events", type=int, default=100, help="events of each of these")
    parser.add_argument("--rounds", type=int, default=3, help="times that each set of answers is asked for")
    chosen = parser.parse_args()
    child.preload()
    with providing(chosen.events) as port:
        door = ModelDoor([ModelProvider(name="one", wire=ModelWire.MESSAGES, base_url=f"http://127.0.0.1:{port}")])
        door.open_here()
        door.start()
        asyncio.run(measure(port, door, chosen.requests, chosen.streams, chosen.rounds))


if __name__ == "__main__":
    main()
