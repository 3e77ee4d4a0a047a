"""Floods of a gateway with running jobs: what callers who are known notice of them, and what they cost.

In one run: GetJob is called by a viewer for a while, then again while bench.kit.flooder floods the gateway from another
process, in turns. Floods have names; by default all of them come at once. Reports the ratio of the 99th percentiles
(wanted: <= 5), of the gateway's memory (wanted: <= 3), the refusals of the known caller (wanted: 0), and whether all
jobs ended right with all that they wrote. Exits with 1 when a promise does not hold; the ratio of the times is none on
a machine that has other work.

    python -m bench.floods --seconds 60 --jobs 20
    python -m bench.floods --seconds 10 --jobs 5 --each viewer-streams health-checks
"""

import argparse
import asyncio
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc
from boatyard.access.v1.access_pb2 import ROLE_VIEWER
from boatyard.gateway.v1.auth_pb2 import CreateTokenRequest, Token
from boatyard.gateway.v1.auth_pb2_grpc import TokenServiceStub
from boatyard.gateway.v1.job_pb2 import GetJobRequest, Job
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub

from bench.kit.figures import at_most
from bench.kit.flooder import FLOODS
from bench.kit.options import add_parts, options
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from tests.kit.services import Services, running_services

SLOWER: Final = 5.0
LARGER: Final = 3.0


async def viewers_token(services: Services) -> str:
    async with open_channel(services.address("gateway"), services.home.admin_token()) as channel:
        request = CreateTokenRequest(token=Token(role=ROLE_VIEWER))
        return (await TokenServiceStub(channel).CreateToken(request)).secret


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Asked:
    """What a known caller notices: the times of its calls, and the reasons of those that were refused.

    `load` is the processor time that the gateway used meanwhile, per second.
    """

    def __init__(self, gateway: int) -> None:
        self.seconds: list[float] = []
        self.refusals: list[str] = []
        self._gateway = gateway
        self._used = self._lasted = 0.0

    @property
    def load(self) -> float:
        return self._used / self._lasted

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98]

    async def ask(self, stub: JobServiceStub, job_id: str, seconds: float) -> None:
        """Call GetJob, 20 times a second."""
        started, used = time.monotonic(), processor_seconds(self._gateway)
        while time.monotonic() - started < seconds:
            began = time.perf_counter()
            try:
                await stub.GetJob(GetJobRequest(job_id=job_id))
            except grpc.aio.AioRpcError as error:
                self.refusals.append(service_error(error).reason)
            self.seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)
        self._lasted += time.monotonic() - started
        self._used += processor_seconds(self._gateway) - used


@contextlib.contextmanager
def flooding(services: Services, token: str, job_id: str, floods: Sequence[str]) -> Iterator[None]:
    to = [services.address("gateway"), services.address("http"), job_id]
    command = [sys.executable, "-m", "bench.kit.flooder", *to, *floods]
    environment = {**os.environ, "TOKEN": token}
    flooder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert flooder.stdout is not None
        flooder.stdout.readline()
        yield
    finally:
        if flooder.poll() is not None:
            raise RuntimeError("the flood has ended by itself")
        flooder.kill()
        flooder.communicate()


class Cell:
    """A cell with running jobs, of which one is asked for. `refusals` are the reasons why its caller was refused."""

    def __init__(self, services: Services, lines: int) -> None:
        self._services = services
        self._lines = lines
        self._jobs: list[Job] = []
        self.refusals: list[str] = []

    async def run_jobs(self, count: int) -> None:
        """Start jobs that write a line a second."""
        line = f"i=0; while [ $i -lt {self._lines} ]; do echo $i; i=$((i+1)); sleep 1; done"
        self._jobs = [await self._services.submit(line) for _ in range(count)]
        for job in self._jobs:
            await self._services.until(job.job_id, lambda now: now.state == Job.STATE_RUNNING, timeout=120)

    async def flood(self, floods: Sequence[str], seconds: float, rounds: int) -> bool:
        """Print what a known caller notices of some floods; return True when all promises but that of times hold."""
        services, job_id = self._services, self._jobs[0].job_id
        gateway = services.processes["gateway"].pid
        quiet, flooded, memory, grown = Asked(gateway), Asked(gateway), 0, 0
        async with open_channel(services.address("gateway"), await viewers_token(services)) as channel:
            stub = JobServiceStub(channel)
            for _ in range(rounds):
                await quiet.ask(stub, job_id, seconds / rounds / 2)
                memory = memory or resident(gateway)
                with flooding(services, await viewers_token(services), job_id, floods):
                    await flooded.ask(stub, job_id, seconds / rounds)
                    grown = max(grown, resident(gateway))
        slower, larger = flooded.p99 / quiet.p99, grown / memory
        print(
            f"{', '.join(floods)}: GetJob, p99 {1e3 * flooded.p99:.1f} ms, without {1e3 * quiet.p99:.1f} ms,"
            f" ratio {slower:.1f} {at_most(slower, SLOWER)}; medians {1e3 * flooded.median:.1f} and"
            f" {1e3 * quiet.median:.1f} ms; gateway {flooded.load:.2f} and {quiet.load:.2f} processors,"
            f" {grown >> 20} and {memory >> 20} MiB"
            f" {at_most(larger, LARGER)}",
            flush=True,
        )
        self.refusals += quiet.refusals + flooded.refusals
        return larger <= LARGER

    async def right(self) -> int:
        """Wait for the jobs' ends; return how many ended right with all that they wrote."""
        expected = b"".join(b"%d\n" % number for number in range(self._lines))
        count = 0
        for job in self._jobs:
            ended = await self._services.ended(job.job_id, timeout=self._lines + 120)
            output = await self._services.output(ended.execution_ids[0])
            count += ended.state == Job.STATE_SUCCEEDED and output == expected
        return count


async def measure(services: Services, wanted: argparse.Namespace) -> bool:
    """Print what was found; return True when all promises hold that do not depend on the machine's other work."""
    floods = [[name] for name in wanted.parts] if wanted.each else [wanted.parts]
    cell = Cell(services, lines=int((wanted.seconds * 1.6 + 3 * wanted.rounds) * len(floods)) + 10)
    await cell.run_jobs(wanted.jobs)
    is_bounded = [await cell.flood(names, wanted.seconds, wanted.rounds) for names in floods]
    right, refusals = await cell.right(), cell.refusals
    print(f"refusals of the known caller: {len(refusals)} {at_most(len(refusals), 0)} {sorted(set(refusals))}")
    print(f"jobs that ended right: {right} of {wanted.jobs}")
    return all(is_bounded) and not refusals and right == wanted.jobs


async def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to flood")
    parser.add_argument("--jobs", type=int, default=20, help="that run meanwhile")
    parser.add_argument(
        "--rounds", type=int, default=1, help="quiet and flooded, in turns; together they last --seconds"
    )
    parser.add_argument("--each", action="store_true", help="flood with one kind after another, and not all at once")
    add_parts(parser, FLOODS)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
        settings = {"BOATYARD_LOG_LEVEL": "ERROR", "BOATYARD_GATEWAY_MAX_JOBS": str(wanted.jobs)}
        async with running_services(Path(name), **settings) as services:
            return 0 if await measure(services, wanted) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
