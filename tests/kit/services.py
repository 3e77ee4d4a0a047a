"""The four services as real processes on a home of their own, without the supervisor and the command line."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from boatyard.gateway.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    checkpoint_pb2,
    checkpoint_pb2_grpc,
    cost_pb2_grpc,
    hook_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    runtime_pb2,
    runtime_pb2_grpc,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.home import Home
from services.common.rpc.channel import open_channel
from services.common.rpc.streaming import streaming
from tests.kit.cell import OFFSETS, free_port_base
from tests.kit.databases import add_databases
from tests.kit.mounts import unmount_below
from tests.kit.repos import Repo

FINAL = {job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_CANCELLED}


class Services:
    """The processes, and stubs for the gateway."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.home.directory("run")
        self.base = free_port_base()
        self.environment = {
            "BOATYARD_HOME": str(self.home.root),
            "BOATYARD_GIT_FILE_ROOTS": "/",
            "BOATYARD_GIT_MIN_FREE_BYTES": "0",
            "BOATYARD_WORKSPACE_DISK_RESERVE_BYTES": "0",
            "BOATYARD_GATEWAY_LISTEN": self.address("gateway"),
            "BOATYARD_GATEWAY_HTTP_LISTEN": self.address("http"),
            **environment,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.jobs: job_pb2_grpc.JobServiceStub
        self.runtime: runtime_pb2_grpc.AgentRuntimeServiceStub
        self.catalog: catalog_pb2_grpc.CatalogServiceStub
        self.costs: cost_pb2_grpc.CostServiceStub
        self.hooks: hook_pb2_grpc.HookServiceStub
        self.checkpoints: checkpoint_pb2_grpc.CheckpointServiceStub

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.base + OFFSETS[name]}" if name in OFFSETS else self.home.socket(name)

    def start(self, name: str, **environment: str) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", f"services.{name}"],
                env=os.environ | self.environment | environment,
                stderr=log,
            )

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        process = self.processes.pop(name)
        process.send_signal(how)
        return process.wait(timeout=20)

    async def serving(self, name: str) -> None:
        """Wait until a service answers."""
        async with asyncio.timeout(90), open_channel(self.address(name)) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while True:
                try:
                    answer = await check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=90)
                except grpc.aio.AioRpcError as error:
                    # Channels to one address share connections: this one may still be that of the process before.
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                else:
                    break
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    async def repository(self, remote: Path | Repo) -> str:
        """Add a repository to the catalogue, unless it is there; return its id."""
        url = str(remote.path if isinstance(remote, Repo) else remote)
        known = await self.catalog.ListRepositories(catalog_pb2.ListRepositoriesRequest(url=url))
        if known.repositories:
            return known.repositories[0].repository_id
        request = catalog_pb2.CreateRepositoryRequest(repository=catalog_pb2.Repository(url=url))
        return (await self.catalog.CreateRepository(request)).repository.repository_id

    async def submit(self, command: str, **spec: Any) -> job_pb2.Job:
        """Submit a job whose agent is a line for /bin/sh."""
        settings = {"command": {"line": command}, **spec.pop("agent", {})}
        job_spec = job_pb2.JobSpec(**{"prompt": "Do it.", **spec, "agent": settings})
        return (await self.jobs.CreateJob(job_pb2.CreateJobRequest(spec=job_spec))).job

    async def job(self, job_id: str) -> job_pb2.Job:
        return (await self.jobs.GetJob(job_pb2.GetJobRequest(job_id=job_id))).job

    async def ended(self, job_id: str, timeout: float = 90) -> job_pb2.Job:
        """Watch a job to its end, also while the gateway is away; return it."""
        async with asyncio.timeout(timeout):
            while True:
                try:
                    async with streaming(self.jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job_id))) as changes:
                        async for change in changes:
                            if change.HasField("job") and change.job.state in FINAL:
                                return change.job
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                await asyncio.sleep(0.05)

    async def run(self, command: str, **spec: Any) -> job_pb2.Job:
        """Run a job to its end; return it."""
        return await self.ended((await self.submit(command, **spec)).job_id)

    async def asked(self, job_id: str) -> checkpoint_pb2.Checkpoint:
        """Wait until a job waits for a person; return its newest question."""
        job = await self.until(job_id, lambda now: now.state in {*FINAL, job_pb2.Job.STATE_AWAITING_APPROVAL})
        assert job.state == job_pb2.Job.STATE_AWAITING_APPROVAL, job
        return job.checkpoints[-1]

    async def until(self, job_id: str, condition: Callable[[job_pb2.Job], bool], timeout: float = 60) -> job_pb2.Job:
        """Wait until a condition holds for a job; return it."""
        async with asyncio.timeout(timeout):
            while not condition(job := await self.job(job_id)):
                await asyncio.sleep(0.02)
        return job

    async def output(self, execution_id: str, *, follow: bool = True) -> bytes:
        """Return what an execution wrote; check that its events have neither gaps nor duplicates."""
        request = runtime_pb2.WatchExecutionRequest(execution_id=execution_id, follow=follow)
        parts, expected = [], 1
        async with streaming(self.runtime.WatchExecution(request)) as messages:
            async for message in messages:
                for event in message.events:
                    assert event.sequence == expected
                    expected += 1
                    parts.append(event.output.data)
        return b"".join(parts)


@asynccontextmanager
async def running_services(root: Path, **environment: str) -> AsyncIterator[Services]:
    """Start all four services, and end them after the block."""
    services = Services(root, **environment)
    add_databases(services.home.root)
    names = ("workspace", "git", "execution", "gateway")
    try:
        for name in names:
            services.start(name)
        await asyncio.gather(*map(services.serving, names))
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(
                open_channel(services.address("gateway"), services.home.admin_token())
            )
            services.jobs = job_pb2_grpc.JobServiceStub(channel)
            services.runtime = runtime_pb2_grpc.AgentRuntimeServiceStub(channel)
            services.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
            services.checkpoints = checkpoint_pb2_grpc.CheckpointServiceStub(channel)
            services.costs = cost_pb2_grpc.CostServiceStub(channel)
            services.hooks = hook_pb2_grpc.HookServiceStub(channel)
            yield services
    finally:
        # In threads: a service may talk to a part of the test while it ends, which runs in this event loop.
        for name in list(services.processes):
            await asyncio.to_thread(services.end, name)
        unmount_below(root)
