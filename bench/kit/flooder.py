"""Floods a gateway until it is ended: `python -m bench.kit.flooder GATEWAY HTTP`, with a viewer's token in TOKEN.

All at once: streams of health without a token, WatchJobs of one viewer, connections to the HTTP port
on which nothing is asked, calls with tokens that nobody knows, and bodies of 3 MiB without a token.
"""

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
from boatyard.gateway.v1.job_pb2 import GetJobRequest, WatchJobsRequest
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub

from services.common.rpc.channel import open_channel

STREAMS: Final = 1000
CONNECTIONS: Final = 300
CALLERS: Final = 10
PAUSE_SECONDS: Final = 10.0
"""Between two tries of one that wants to hold something. No server answers everybody who calls faster than it can."""

Watch: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"
Once = Callable[[], Awaitable[object]]


async def again_and_again(once: Once, pause: float) -> None:
    await asyncio.sleep(random.random() * pause)  # else all of them try in the same moment, again and again
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError, OSError):
            await once()
        await asyncio.sleep(pause)


async def held(call: "grpc.aio.UnaryStreamCall[Any, Any]") -> None:
    async for _ in call:
        pass


async def main(gateway: str, http: str, token: str) -> None:
    host, _, port = http.rpartition(":")

    async def connect() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        await reader.read()
        writer.close()

    async with (
        open_channel(gateway) as nobody,
        open_channel(gateway, token) as viewer,
        open_channel(gateway, "boatyard_unknown") as guessing,
        asyncio.TaskGroup() as tasks,
    ):
        watch: Watch = nobody.unary_stream("/grpc.health.v1.Health/Watch")
        jobs = JobServiceStub(viewer).WatchJobs
        get, big = JobServiceStub(guessing).GetJob, GetJobRequest(job_id="x" * (3 << 20))
        floods: list[tuple[int, Once, float]] = [
            (STREAMS, lambda: held(watch(b"")), PAUSE_SECONDS),
            (STREAMS, lambda: held(jobs(WatchJobsRequest())), PAUSE_SECONDS),
            (CONNECTIONS, connect, PAUSE_SECONDS),
            (CALLERS, lambda: get(GetJobRequest(job_id="job-1")), 0.0),
            (CALLERS, lambda: JobServiceStub(nobody).GetJob(big), 0.0),
        ]
        for count, once, pause in floods:
            for _ in range(count):
                tasks.create_task(again_and_again(once, pause))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], os.environ["TOKEN"]))
