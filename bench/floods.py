"""Floods of a gateway with running jobs: what callers who are known notice of them, and what they cost.

In one run: GetJob is called by a viewer for a while, then again while bench.kit.flooder floods the gateway from another
process with everything at once. Reports the ratio of the 99th percentiles (wanted: <= 5), of the gateway's memory
(wanted: <= 3), the refusals of the known caller (wanted: 0), and whether all jobs ended right with all that they wrote.
Exits with 1 when a promise does not hold; the ratio of the times is none on a machine that has other work.

    python -m bench.floods --seconds 60 --jobs 20
"""

import asyncio
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
from boatyard.access.v1.access_pb2 import ROLE_VIEWER
from boatyard.gateway.v1.auth_pb2 import CreateTokenRequest, Token
from boatyard.gateway.v1.auth_pb2_grpc import TokenServiceStub
from boatyard.gateway.v1.job_pb2 import GetJobRequest, Job
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub

from bench.kit.figures import at_most
from bench.kit.options import options
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


class Asked:
    """What a known caller notices: the times of its calls, and the reasons of those that were refused."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.refusals: list[str] = []

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98]

    async def ask(self, stub: JobServiceStub, job_id: str, seconds: float) -> None:
        """Call GetJob, 20 times a second."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                await stub.GetJob(GetJobRequest(job_id=job_id))
            except grpc.aio.AioRpcError as error:
                self.refusals.append(service_error(error).reason)
            self.seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def flooding(services: Services, token: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.kit.flooder", services.address("gateway"), services.address("http")]
    flooder = subprocess.Popen(command, env={**os.environ, "TOKEN": token}, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        if flooder.poll() is not None:
            raise RuntimeError("the flood has ended by itself")
        flooder.kill()
        flooder.wait()


async def measure(services: Services, count: int, seconds: float) -> bool:
    """Print what was found; return True when all promises hold that do not depend on the machine's other work."""
    lines = int(seconds * 1.5) + 10
    line = f"i=0; while [ $i -lt {lines} ]; do echo $i; i=$((i+1)); sleep 1; done"
    jobs = [await services.submit(line) for _ in range(count)]
    for job in jobs:
        await services.until(job.job_id, lambda now: now.state == Job.STATE_RUNNING, timeout=120)
    gateway = services.processes["gateway"].pid
    quiet, flooded = Asked(), Asked()
    async with open_channel(services.address("gateway"), await viewers_token(services)) as channel:
        stub = JobServiceStub(channel)
        await quiet.ask(stub, jobs[0].job_id, seconds / 2)
        memory = resident(gateway)
        with flooding(services, await viewers_token(services)):
            await flooded.ask(stub, jobs[0].job_id, seconds)
            grown = resident(gateway)
    ended = [await services.ended(job.job_id, timeout=seconds + 120) for job in jobs]
    expected = b"".join(b"%d\n" % number for number in range(lines))
    right = [
        job.state == Job.STATE_SUCCEEDED and await services.output(job.execution_ids[0]) == expected for job in ended
    ]
    slower = flooded.p99 / quiet.p99
    print(
        f"GetJob, p99: {1e3 * flooded.p99:.1f} ms under floods, {1e3 * quiet.p99:.1f} ms without,"
        f" ratio {slower:.1f} {at_most(slower, SLOWER)}"
    )
    print(f"memory of the gateway: {grown >> 20} MiB, before {memory >> 20} MiB {at_most(grown / memory, LARGER)}")
    refused = quiet.refusals + flooded.refusals
    print(f"refusals of the known caller: {len(refused)} {at_most(len(refused), 0)} {sorted(set(refused))}")
    print(f"jobs that ended right: {sum(right)} of {count}")
    return all(right) and not refused and grown / memory <= LARGER


async def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to flood")
    parser.add_argument("--jobs", type=int, default=20, help="that run meanwhile")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
        settings = {"BOATYARD_LOG_LEVEL": "ERROR", "BOATYARD_GATEWAY_MAX_JOBS": str(wanted.jobs)}
        async with running_services(Path(name), **settings) as services:
            return 0 if await measure(services, wanted.jobs, wanted.seconds) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
