"""Floods a gateway until it is ended: `python -m bench.kit.flooder GATEWAY HTTP JOB FLOOD …`.

A viewer's token is in TOKEN. A line on its input begins the flood, and the next one ends it; each is answered by a line
with the number of tries so far. FLOODS has the kinds by name. Those that hold something try again after a pause; the
others as soon as they are answered.

It stands for other machines, and so has only the processor time that nothing else on this one wants.
"""

import asyncio
import contextlib
import multiprocessing
import os
import random
import sys
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Final, TypeAlias

import grpc
from boatyard.gateway.v1.job_pb2 import GetJobRequest, ListJobsRequest, WatchJobRequest, WatchJobsRequest
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from services.common.rpc.channel import open_channel

STREAMS: Final = 1000
CONNECTIONS: Final = 300
CALLERS: Final = 10
PAUSE_SECONDS: Final = 10.0
"""Between two tries of one that wants to hold something. No server answers everybody who calls faster than it can."""

Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
Watch: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"
Stream: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"
Once = Callable[["Target"], Awaitable[object]]


@dataclass(frozen=True)
class Target:
    """What is flooded, by channels of callers who are nobody, a viewer, and one with a token that nobody knows."""

    nobody: grpc.aio.Channel
    viewer: grpc.aio.Channel
    guessing: grpc.aio.Channel
    address: str
    http: str
    job_id: str


async def held(call: AsyncIterable[object]) -> None:
    async for _ in call:
        pass


async def reflection(target: Target) -> None:
    asked: Stream = target.nobody.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    await held(asked(iter([ServerReflectionRequest(list_services="").SerializeToString()])))


async def health_stream(target: Target) -> None:
    watch: Watch = target.nobody.unary_stream("/grpc.health.v1.Health/Watch")
    await held(watch(b""))


async def call(channel: grpc.aio.Channel, method: str) -> None:
    once: Call = channel.unary_unary(method)
    await once(b"")


async def connection(address: str, sent: bytes = b"", *, is_closed: bool = False) -> None:
    """Connect, send something, and read what comes until the other side closes, or close at once."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        if not is_closed:
            await reader.read()
    finally:
        writer.transport.abort()


def request(path: str, header: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n".encode()


BIG: Final = GetJobRequest(job_id="x" * (3 << 20))
WRONG: Final = "Authorization: Bearer boatyard_unknown\r\n"

FLOODS: Final[dict[str, tuple[int, Once, float]]] = {
    "health-streams": (STREAMS, health_stream, PAUSE_SECONDS),
    "viewer-streams": (
        STREAMS,
        lambda to: held(JobServiceStub(to.viewer).WatchJobs(WatchJobsRequest())),
        PAUSE_SECONDS,
    ),
    "viewer-job-streams": (
        STREAMS,
        lambda to: held(JobServiceStub(to.viewer).WatchJob(WatchJobRequest(job_id=to.job_id))),
        PAUSE_SECONDS,
    ),
    "idle-http": (CONNECTIONS, lambda to: connection(to.http), PAUSE_SECONDS),
    "unknown-tokens": (CALLERS, lambda to: JobServiceStub(to.guessing).GetJob(GetJobRequest(job_id="job-1")), 0.0),
    "big-bodies": (CALLERS, lambda to: JobServiceStub(to.nobody).GetJob(BIG), 0.0),
    "health-checks": (CALLERS, lambda to: call(to.nobody, "/grpc.health.v1.Health/Check"), 0.0),
    "reflection": (CALLERS, reflection, 0.0),
    "unknown-methods": (CALLERS, lambda to: call(to.nobody, "/boatyard.No/No"), 0.0),
    "viewer-calls": (CALLERS, lambda to: JobServiceStub(to.viewer).ListJobs(ListJobsRequest()), 0.0),
    "http-requests": (CALLERS, lambda to: connection(to.http, request("/healthz")), 0.0),
    "http-tokens": (CALLERS, lambda to: connection(to.http, request("/metrics", WRONG)), 0.0),
    "connections": (CALLERS, lambda to: connection(to.address, is_closed=True), 0.0),
}


async def again_and_again(name: str, target: Target, tries: "Synchronized[int]") -> None:
    _, once, pause = FLOODS[name]
    await asyncio.sleep(random.random() * pause)  # else all of them try in the same moment, again and again
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError, OSError):
            await once(target)
        tries.value += 1
        await asyncio.sleep(pause)


async def flood(tries: "Synchronized[int]", gateway: str, http: str, job_id: str, *names: str) -> None:
    async with (
        open_channel(gateway) as nobody,
        open_channel(gateway, os.environ["TOKEN"]) as viewer,
        open_channel(gateway, "boatyard_unknown") as guessing,
        asyncio.TaskGroup() as tasks,
    ):
        target = Target(nobody, viewer, guessing, gateway, http, job_id)
        for name in names:
            for _ in range(FLOODS[name][0]):
                tasks.create_task(again_and_again(name, target, tries))


def main(*arguments: str) -> None:
    tries: Synchronized[int] = multiprocessing.Value("Q", 0)
    while sys.stdin.readline():
        # A process that is killed leaves nothing behind, and one that is forked has imported everything already.
        running = multiprocessing.Process(target=lambda: asyncio.run(flood(tries, *arguments)), daemon=True)
        running.start()
        print(tries.value, flush=True)
        sys.stdin.readline()
        running.kill()
        running.join()
        print(tries.value, flush=True)


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    main(*sys.argv[1:])
