"""What the gateway adds to an execution, against the execution service of the same cell, in one run.

relay     bytes per second of an ended execution's output at WatchExecution, against WatchEvents of the same execution
execute   CreateJob called -> first byte of its agent at WatchExecution: a claim, an empty workspace and every step of a
          job recorded; against StartExecution -> first byte at WatchEvents

Each round measures in the reverse order of the one before; the results are medians and their ratio. There is no goal
for either: they complement the goals of bench.executions.

    python -m bench.gateway relay --rounds 3
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.gateway.v1.runtime_pb2 import WatchExecutionRequest

from bench.kit.executions import Executions
from bench.kit.options import add_parts, options
from services.common.rpc.channel import open_channel
from services.common.rpc.streaming import streaming
from tests.kit.services import Services, running_services

FLOOD = "seq 1 13000000"

Way = Callable[[], Awaitable[float]]


class Gateway:
    """The gateway of a cell, as a caller sees it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def flooded(self) -> str:
        """Run a job that writes much; return its execution's id when it has ended."""
        job = await self._services.run(FLOOD)
        return job.execution_ids[0]

    async def output(self, execution_id: str, *, first: bool = False) -> int:
        """Return the number of bytes of an execution's whole output, or of the first message with output."""
        total = 0
        request = WatchExecutionRequest(execution_id=execution_id, follow=True)
        async with streaming(self._services.runtime.WatchExecution(request)) as messages:
            async for message in messages:
                total += sum(len(event.output.data) for event in message.events)
                if first and total:
                    break
        return total

    async def seconds_to_first_byte(self) -> float:
        await asyncio.sleep(1)  # one at a time, as people start them
        began = time.perf_counter()
        job = await self._services.submit("echo ready")
        await self.output(job.execution_ids[0], first=True)
        took = time.perf_counter() - began
        await self._services.ended(job.job_id)
        return took


async def medians(rounds: int, ours: Way, direct: Way) -> tuple[float, float]:
    """Measure two ways in turn, after a first round that warms up and does not count."""
    found: dict[Way, list[float]] = {ours: [], direct: []}
    for number in range(rounds + 1):
        for way in (ours, direct) if number % 2 else (direct, ours):
            value = await way()
            if number:
                found[way].append(value)
    return statistics.median(found[ours]), statistics.median(found[direct])


async def relay(gateway: Gateway, runs: Executions, rounds: int) -> None:
    execution_id = await gateway.flooded()

    def rate(output: Callable[[str], Awaitable[int]]) -> Way:
        async def measured() -> float:
            began = time.perf_counter()
            size = await output(execution_id)
            return size / (time.perf_counter() - began) / 1e6

        return measured

    ours, direct = await medians(rounds, rate(gateway.output), rate(runs.output))
    print(f"relay    {ours:.0f} MB/s, execution service {direct:.0f} MB/s, ratio {ours / direct:.2f}")


async def execute(gateway: Gateway, runs: Executions, rounds: int) -> None:
    async def started() -> float:
        await asyncio.sleep(1)
        began = time.perf_counter()
        await runs.output(await runs.start("echo ready"), first=True)
        return time.perf_counter() - began

    ours, direct = (1e3 * took for took in await medians(rounds, gateway.seconds_to_first_byte, started))
    print(f"execute  {ours:.0f} ms to the first byte, execution service {direct:.0f} ms, ratio {ours / direct:.1f}")


PARTS: dict[str, Callable[[Gateway, Executions, int], Awaitable[None]]] = {"relay": relay, "execute": execute}


async def main() -> None:
    parser = options(__doc__)
    add_parts(parser, PARTS)
    parser.add_argument("--rounds", type=int, default=9, help="of each")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
        root = Path(name)
        workspace = root / "workspace"
        workspace.mkdir()
        async with (
            running_services(root, BOATYARD_LOG_LEVEL="ERROR") as services,
            open_channel(services.address("execution"), services.home.cell_token()) as channel,
        ):
            runs = Executions(services, ExecutionServiceStub(channel), workspace)
            for part in wanted.parts:
                await PARTS[part](Gateway(services), runs, wanted.rounds)


if __name__ == "__main__":
    asyncio.run(main())
