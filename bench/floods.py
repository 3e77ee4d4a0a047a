"""Floods of a gateway with running jobs: what callers who are known notice of them, and what they cost.

A viewer calls GetJob 20 times a second, in slices of some seconds: quiet, flooded, quiet, and so on, with the same jobs
running. So whatever else the machine does is in both, and the times can be compared. bench.kit.flooder floods from a
process of its own. It stands for other machines: it has only the processor time that nothing else wants, since what it
takes from the gateway here it would not take from there. Floods have names; by default all of them come at once.

Reports GetJob's medians and 99th percentiles in both kinds of slices and their ratio (wanted: p99 <= 5); how late a
timer of the caller's own was, which is the machine's part of them; how many times a second the flood tried; the
gateway's processor time, and its memory (wanted: <= 3 times); the refusals of the known caller (wanted: 0); and whether
all jobs ended right with all that they wrote. Exits with 1 when a promise does not hold; that of the times counts with
--strict alone, for a machine that has no other work.

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
SLICE_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.05


def slices(seconds: float) -> int:
    """Return in how many slices so many seconds are flooded."""
    return max(1, round(seconds / SLICE_SECONDS))


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


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


class Asked:
    """What a known caller notices: the times of its calls, in seconds, and the reasons of those that were refused.

    `late` has how late a timer was between two calls, in seconds; `load` is the processor time that the gateway used
    meanwhile, per second.
    """

    def __init__(self, gateway: int) -> None:
        self.seconds: list[float] = []
        self.late: list[float] = []
        self.refusals: list[str] = []
        self._gateway = gateway
        self._used = self._lasted = 0.0

    @property
    def load(self) -> float:
        return self._used / self._lasted

    async def ask(self, stub: JobServiceStub, job_id: str, seconds: float) -> None:
        """Call GetJob, 20 times a second."""
        started, used = time.monotonic(), processor_seconds(self._gateway)
        while time.monotonic() - started < seconds:
            began = time.perf_counter()
            try:
                await stub.GetJob(GetJobRequest(job_id=job_id))
            except grpc.aio.AioRpcError as error:
                self.refusals.append(service_error(error).reason)
            answered = time.perf_counter()
            self.seconds.append(answered - began)
            await asyncio.sleep(PAUSE_SECONDS)
            self.late.append(time.perf_counter() - answered - PAUSE_SECONDS)
        self._lasted += time.monotonic() - started
        self._used += processor_seconds(self._gateway) - used

    def __str__(self) -> str:
        return (
            f"p50 {1e3 * statistics.median(self.seconds):.1f}, p99 {1e3 * p99(self.seconds):.1f} ms of"
            f" {len(self.seconds)} calls (a timer: {1e3 * p99(self.late):.1f} ms late);"
            f" gateway {self.load:.2f} processors"
        )


class Flooder:
    """Floods in another process, inside of `flooding`. `tries` is how often, and `seconds` how long, in all."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.tries = 0
        self.seconds = 0.0

    @contextlib.contextmanager
    def flooding(self) -> Iterator[None]:
        self._tell()
        began = time.monotonic()
        yield
        self.seconds += time.monotonic() - began
        self.tries = self._tell()

    def _tell(self) -> int:
        """Begin or end; return the number of tries so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the flood has ended by itself")
        return int(answer)


@contextlib.contextmanager
def flooder(services: Services, token: str, job_id: str, floods: Sequence[str]) -> Iterator[Flooder]:
    to = [services.address("gateway"), services.address("http"), job_id]
    command = [sys.executable, "-m", "bench.kit.flooder", *to, *floods]
    environment = {**os.environ, "TOKEN": token}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Flooder(process)
        finally:
            process.kill()


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

    async def flood(self, floods: Sequence[str], seconds: float) -> tuple[bool, bool]:
        """Print what a known caller notices of some floods; return whether its times and the memory are bounded."""
        services, job_id = self._services, self._jobs[0].job_id
        gateway = services.processes["gateway"].pid
        quiet, flooded, memory, grown = Asked(gateway), Asked(gateway), 0, 0
        async with open_channel(services.address("gateway"), await viewers_token(services)) as channel:
            stub = JobServiceStub(channel)
            with flooder(services, await viewers_token(services), job_id, floods) as flood:
                for _ in range(slices(seconds)):
                    await asyncio.sleep(SETTLE_SECONDS)  # the last flood's calls end
                    await quiet.ask(stub, job_id, min(SLICE_SECONDS, seconds))
                    memory = memory or resident(gateway)
                    with flood.flooding():
                        await flooded.ask(stub, job_id, min(SLICE_SECONDS, seconds))
                        grown = max(grown, resident(gateway))
        slower, larger = p99(flooded.seconds) / p99(quiet.seconds), grown / memory
        median = statistics.median(flooded.seconds) / statistics.median(quiet.seconds)
        print(
            f"{', '.join(floods)}: {flood.tries / flood.seconds:.0f} tries a second\n"
            f"  quiet:   {quiet}\n"
            f"  flooded: {flooded}\n"
            f"  ratio:   p50 {median:.1f}, p99 {slower:.1f} {at_most(slower, SLOWER)};"
            f" {memory >> 20} and {grown >> 20} MiB {at_most(larger, LARGER)}",
            flush=True,
        )
        self.refusals += quiet.refusals + flooded.refusals
        return slower <= SLOWER, larger <= LARGER

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
    """Print what was found; return True when all promises hold; with --strict also that of the times."""
    floods = [[name] for name in wanted.parts] if wanted.each else [wanted.parts]
    lasts = slices(wanted.seconds) * (2 * SLICE_SECONDS + SETTLE_SECONDS) + 5
    cell = Cell(services, lines=int(lasts * len(floods)) + 10)
    await cell.run_jobs(wanted.jobs)
    found = [await cell.flood(names, wanted.seconds) for names in floods]
    right, refusals = await cell.right(), cell.refusals
    print(f"refusals of the known caller: {len(refusals)} {at_most(len(refusals), 0)} {sorted(set(refusals))}")
    print(f"jobs that ended right: {right} of {wanted.jobs}")
    bounded = all(memory and (times or not wanted.strict) for times, memory in found)
    return bounded and not refusals and right == wanted.jobs


async def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to flood; as long it is quiet")
    parser.add_argument("--jobs", type=int, default=20, help="that run meanwhile")
    parser.add_argument("--each", action="store_true", help="flood with one kind after another, and not all at once")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when the times' promise does not hold")
    add_parts(parser, FLOODS)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
        places = ("BOATYARD_GATEWAY_MAX_JOBS", "BOATYARD_EXECUTION_MAX_EXECUTIONS")
        settings = {"BOATYARD_LOG_LEVEL": "ERROR", **dict.fromkeys(places, str(wanted.jobs))}
        async with running_services(Path(name), **settings) as services:
            return 0 if await measure(services, wanted) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
