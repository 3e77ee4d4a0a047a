"""What viewers of an execution see: everything, from any place, at any time."""

import asyncio

import grpc
import pytest
from boatyard.gateway.v1 import job_pb2, runtime_pb2

from services.common.errors import OutOfRange
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from tests.kit.services import Services

LINES = b"".join(b"%d\n" % number for number in range(1, 50_001))


async def watch(services: Services, execution_id: str, first: int = 0, *, follow: bool = True):
    """Return the sequences that a viewer sees, and the end."""
    request = runtime_pb2.WatchExecutionRequest(execution_id=execution_id, from_sequence=first, follow=follow)
    seen, end = [], None
    async with streaming(services.runtime.WatchExecution(request)) as messages:
        async for message in messages:
            assert end is None
            seen += [event.sequence for event in message.events]
            end = message.end if message.HasField("end") else None
    return seen, end


async def test_viewers_of_all_kinds_see_the_same(services: Services) -> None:
    job = await services.submit("sleep 0.3; seq 25000; sleep 0.3; seq 25001 50000")
    execution_id = job.execution_ids[0]
    outputs = await asyncio.gather(*(services.output(execution_id) for _ in range(5)))
    assert set(outputs) == {LINES}
    await services.ended(job.job_id)
    assert await services.output(execution_id, follow=False) == LINES
    seen, end = await watch(services, execution_id)
    assert seen == list(range(1, len(seen) + 1))
    assert end.state == runtime_pb2.Execution.STATE_SUCCEEDED
    assert end.duration.ToNanoseconds() >= 0.6e9
    assert await watch(services, execution_id, 3) == (seen[2:], end)
    assert await watch(services, execution_id, len(seen) + 1) == ([], end)
    assert await watch(services, execution_id, 3, follow=False) == (seen[2:], None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch(services, execution_id, len(seen) + 2)
    refused = service_error(caught.value)
    assert isinstance(refused, OutOfRange)
    assert refused.reason == "EVENTS_OUT_OF_RANGE"


@pytest.mark.slow
async def test_an_execution_that_has_not_begun_is_waited_for(services: Services) -> None:
    block = [await services.submit("sleep 1") for _ in range(4)]  # as many as the cell takes
    job = await services.submit("echo at last")
    assert await watch(services, job.execution_ids[0], follow=False) == ([], None)
    assert await services.output(job.execution_ids[0]) == b"at last\n"
    for other in block:
        await services.ended(other.job_id)


@pytest.mark.slow
async def test_an_execution_that_never_begins_has_an_end(services: Services) -> None:
    block = [await services.submit("sleep 1") for _ in range(4)]
    job = await services.submit("true")
    viewer = asyncio.create_task(watch(services, job.execution_ids[0]))
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    seen, end = await viewer
    assert (seen, end.state) == ([], runtime_pb2.Execution.STATE_CANCELLED)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch(services, job.execution_ids[0], 2)
    assert service_error(caught.value).reason == "EVENTS_OUT_OF_RANGE"
    for other in block:
        await services.ended(other.job_id)
