"""A gateway under calls of nobody: who was let in stays in, and neither log nor record is flooded."""

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest
from boatyard.access.v1.access_pb2 import ROLE_VIEWER
from boatyard.gateway.v1.audit_pb2 import ListAuditRecordsRequest
from boatyard.gateway.v1.audit_pb2_grpc import AuditServiceStub
from boatyard.gateway.v1.auth_pb2 import CreateTokenRequest
from boatyard.gateway.v1.auth_pb2_grpc import TokenServiceStub
from boatyard.gateway.v1.job_pb2 import ListJobKindsRequest
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub

from services.common.rpc.channel import open_channel
from tests.kit.gateway import running_gateway
from tests.kit.metrics import get

CALLS = 400


@pytest.mark.slow
async def test_a_flood_of_unknown_tokens_is_cut_off_and_hinders_nobody(tmp_path: Path) -> None:
    with running_gateway(tmp_path, BOATYARD_GATEWAY_MAX_JOBS="0") as (address, admin):
        async with open_channel(address, admin) as channel:
            made = await TokenServiceStub(channel).CreateToken(CreateTokenRequest(token={"role": ROLE_VIEWER}))
            async with open_channel(address, made.secret) as ours:
                await JobServiceStub(ours).ListJobKinds(ListJobKindsRequest())
                statuses = await flood(address)
                await JobServiceStub(ours).ListJobKinds(ListJobKindsRequest())
            host, _, port = address.rpartition(":")
            web = f"{host}:{int(port) + 20}"
            assert get(web, "/metrics", "wrong")[0] == 429, "a page is no other way in"
            assert get(web, "/metrics", admin)[0] == 200
            assert set(statuses) == {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
            assert statuses["RESOURCE_EXHAUSTED"] > 1
            told = await recorded(channel)
    assert 1 <= told["TOO_MANY_FAILURES"] < statuses["RESOURCE_EXHAUSTED"], "one a minute, and not one a call"
    log = (tmp_path / "log").read_text()
    assert "refusing unknown callers without a check" in log
    assert 1 <= log.count("TOO_MANY_FAILURES") < statuses["RESOURCE_EXHAUSTED"]


async def flood(address: str) -> Counter[str]:
    """Call again and again with tokens that nobody knows; count how it is answered."""
    statuses: Counter[str] = Counter()
    for number in range(CALLS):
        async with open_channel(address, f"boatyard_{number}") as channel:
            try:
                await JobServiceStub(channel).ListJobKinds(ListJobKindsRequest())
            except grpc.aio.AioRpcError as error:
                statuses[error.code().name] += 1
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
