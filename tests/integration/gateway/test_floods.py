"""Services under calls of nobody, and of somebody who wants everything: the others notice nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from boatyard.access.v1.access_pb2 import ROLE_VIEWER
from boatyard.gateway.v1.audit_pb2 import ListAuditRecordsRequest
from boatyard.gateway.v1.audit_pb2_grpc import AuditServiceStub
from boatyard.gateway.v1.auth_pb2 import CreateTokenRequest
from boatyard.gateway.v1.auth_pb2_grpc import TokenServiceStub
from boatyard.gateway.v1.job_pb2 import Job, ListJobKindsRequest, WatchJobsRequest
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from tests.kit.gateway import running_gateway
from tests.kit.metrics import get
from tests.kit.services import Services

CALLS = 400


@pytest.mark.slow
async def test_a_flood_of_unknown_tokens_is_told_to_wait_and_hinders_nobody(tmp_path: Path) -> None:
    with running_gateway(tmp_path, BOATYARD_GATEWAY_MAX_JOBS="0") as (address, admin):
        async with open_channel(address, admin) as channel:
            made = await TokenServiceStub(channel).CreateToken(CreateTokenRequest(token={"role": ROLE_VIEWER}))
            async with open_channel(address, made.secret) as ours:
                await JobServiceStub(ours).ListJobKinds(ListJobKindsRequest())
                statuses = await flood(address)
                await JobServiceStub(ours).ListJobKinds(ListJobKindsRequest())
            new = await TokenServiceStub(channel).CreateToken(CreateTokenRequest(token={"role": ROLE_VIEWER}))
            async with open_channel(address, new.secret) as ours:  # never seen, and from the same address
                await JobServiceStub(ours).ListJobKinds(ListJobKindsRequest())
            host, _, port = address.rpartition(":")
            web = f"{host}:{int(port) + 20}"
            assert get(web, "/metrics", "wrong")[0] in {401, 429}, "a page is no other way in"
            assert get(web, "/metrics", admin)[0] == 200
            assert set(statuses) == {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
            assert statuses["RESOURCE_EXHAUSTED"] > 1
            told = await recorded(channel)
    assert 1 <= told["TOO_MANY_FAILURES"] < statuses["RESOURCE_EXHAUSTED"], "one a minute, and not one a call"
    log = (tmp_path / "log").read_text()
    assert "refusing unknown callers without a check" in log
    assert 1 <= log.count("TOO_MANY_FAILURES") < statuses["RESOURCE_EXHAUSTED"]


@pytest.mark.slow
@pytest.mark.parametrize("service", ["workspace", "git", "execution", "gateway"])
async def test_a_thousand_streams_of_health_hold_no_job_up(services: Services, service: str) -> None:
    async with grpc.aio.insecure_channel(services.address(service)) as nobody:
        watch = health_pb2_grpc.HealthStub(nobody).Watch
        with flooded(lambda: watch(health_pb2.HealthCheckRequest())) as calls:
            assert Counter([await outcome(call) for call in calls])["TOO_MANY_CALLS"] > 900
            job = await services.run("echo done")
            assert job.state == Job.STATE_SUCCEEDED, job


@pytest.mark.slow
async def test_a_viewer_with_a_thousand_streams_holds_nobody_up(services: Services) -> None:
    admin = services.home.admin_token()
    async with open_channel(services.address("gateway"), admin) as channel:
        made = await TokenServiceStub(channel).CreateToken(CreateTokenRequest(token={"role": ROLE_VIEWER}))
    async with open_channel(services.address("gateway"), made.secret) as viewers:
        stub = JobServiceStub(viewers)
        with flooded(lambda: stub.WatchJobs(WatchJobsRequest())) as calls:
            reasons = Counter([await outcome(call) for call in calls])
            assert set(reasons) == {"OK", "TOO_MANY_CALLS"}
            await stub.ListJobKinds(ListJobKindsRequest())
            job = await services.run("echo done")
            assert job.state == Job.STATE_SUCCEEDED, job
            assert await services.output(job.execution_ids[0]) == b"done\n"


@contextmanager
def flooded(begin: Callable[[], grpc.aio.Call]) -> Iterator[list[grpc.aio.Call]]:
    calls = [begin() for _ in range(1000)]
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()


async def outcome(call: grpc.aio.Call) -> str:
    """Return OK for a stream that has begun, or the reason of its end."""
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return service_error(error).reason
    return "OK"


async def flood(address: str) -> Counter[str]:
    """Call again and again with tokens that nobody knows; count how it is answered."""
    statuses: Counter[str] = Counter()
    room = asyncio.Semaphore(50)

    async def guess(number: int) -> None:
        async with room, open_channel(address, f"boatyard_{number}") as channel:
            try:
                await JobServiceStub(channel).ListJobKinds(ListJobKindsRequest())
            except grpc.aio.AioRpcError as error:
                statuses[error.code().name] += 1

    await asyncio.gather(*(guess(number) for number in range(CALLS)))
    assert statuses.total() == CALLS, "none is let in"
    return statuses


async def recorded(channel: grpc.aio.Channel) -> Counter[str]:
    """Wait for the record of the flood; count its reasons, all of them of nobody."""
    async with asyncio.timeout(20):
        while True:
            wanted = ListAuditRecordsRequest(only_refused=True, page_size=1000)
            answer = await AuditServiceStub(channel).ListAuditRecords(wanted)
            reasons = Counter(record.reason for record in answer.records)
            if reasons["TOO_MANY_FAILURES"]:
                assert {(record.caller, record.role) for record in answer.records} == {("", 0)}
                return reasons
            await asyncio.sleep(0.05)
