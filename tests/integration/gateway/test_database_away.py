"""The public API over a PostgreSQL that is stopped and started: clear errors, and streams that go on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    hook_pb2,
    hook_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    runtime_pb2,
    runtime_pb2_grpc,
)

from services.common.errors import Unavailable
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from tests.kit.gateway import running_gateway
from tests.kit.postgres import OwnPostgres


@pytest.fixture
async def channel(tmp_path: Path, own_postgres: OwnPostgres) -> AsyncIterator[grpc.aio.Channel]:
    """A channel without retries, to a gateway that takes no jobs."""
    environment = {"BOATYARD_DATABASE_URL": own_postgres.url, "BOATYARD_GATEWAY_MAX_JOBS": "0"}
    with running_gateway(tmp_path, **environment) as (address, token):
        async with open_channel(address, token) as opened:
            yield opened


async def answers(stub: job_pb2_grpc.JobServiceStub, job_id: str, times: int) -> None:
    """Have the gateway answer several calls, one after another: what was asked before has then been looked up."""
    for _ in range(times):
        await stub.GetJob(job_pb2.GetJobRequest(job_id=job_id))


async def refusal(call: Awaitable[object]) -> Unavailable:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = service_error(caught.value)
    assert isinstance(error, Unavailable), error
    return error


async def test_every_service_says_that_the_database_is_away(
    channel: grpc.aio.Channel, own_postgres: OwnPostgres
) -> None:
    jobs = job_pb2_grpc.JobServiceStub(channel)
    runtime = runtime_pb2_grpc.AgentRuntimeServiceStub(channel)
    spec = job_pb2.JobSpec(prompt="Wait.", agent={"command": {"line": "true"}})
    job = (await jobs.CreateJob(job_pb2.CreateJobRequest(request_id="before", spec=spec))).job
    (execution_id,) = job.execution_ids
    changes: asyncio.Queue[job_pb2.Job] = asyncio.Queue()
    events = asyncio.create_task(_last(runtime, execution_id))
    await asyncio.sleep(0)  # the call is made before the next
    watching = asyncio.create_task(_watch(jobs, job.job_id, changes))
    assert (await changes.get()).state == job_pb2.Job.STATE_PENDING
    # Who watches from before the outage is kept waiting: both streams have looked once when later calls are answered.
    await answers(jobs, job.job_id, 20)

    await asyncio.to_thread(own_postgres.stop)
    calls = [
        catalog_pb2_grpc.CatalogServiceStub(channel).ListProjects(catalog_pb2.ListProjectsRequest()),
        hook_pb2_grpc.HookServiceStub(channel).ListHooks(hook_pb2.ListHooksRequest()),
        jobs.GetJob(job_pb2.GetJobRequest(job_id=job.job_id)),
        jobs.CreateJob(job_pb2.CreateJobRequest(request_id="after", spec=spec)),
        runtime.CancelExecution(runtime_pb2.CancelExecutionRequest(execution_id=execution_id)),
        _last(runtime, execution_id, first=7),
    ]
    told = [await refusal(call) for call in calls]
    assert [error.reason for error in told] == ["DATABASE_UNAVAILABLE"] * len(calls)
    assert all(error.retry_after > 0 for error in told)
    assert told[-1].resume_from == 7, "a stream says where to go on"
    assert "postgres" not in "".join(error.message for error in told).lower(), "nor where the database is"

    await asyncio.to_thread(own_postgres.start)
    created = (await jobs.CreateJob(job_pb2.CreateJobRequest(request_id="after", spec=spec))).job
    assert created.job_id != job.job_id
    await jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    await watching
    assert changes.get_nowait().state == job_pb2.Job.STATE_CANCELLED, "who was watching has seen it to its end"
    assert (await events).end.state == runtime_pb2.Execution.STATE_CANCELLED


async def _watch(jobs: job_pb2_grpc.JobServiceStub, job_id: str, changes: asyncio.Queue[job_pb2.Job]) -> None:
    async with streaming(jobs.WatchJob(job_pb2.WatchJobRequest(job_id=job_id))) as messages:
        async for message in messages:
            if message.HasField("job"):
                changes.put_nowait(message.job)


async def _last(
    runtime: runtime_pb2_grpc.AgentRuntimeServiceStub, execution_id: str, first: int = 1
) -> runtime_pb2.WatchExecutionResponse:
    request = runtime_pb2.WatchExecutionRequest(execution_id=execution_id, from_sequence=first, follow=True)
    async with streaming(runtime.WatchExecution(request)) as messages:
        async for message in messages:
            last = message
    return last
