"""A cell whose node services cannot carry a job says so before it claims one, and claims it when they can."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from boatyard.gateway.v1 import admin_pb2, admin_pb2_grpc, job_pb2
from boatyard.readiness.v1 import readiness_pb2, readiness_pb2_grpc

from services.common.rpc.channel import open_channel
from tests.kit.metrics import Scraped
from tests.kit.services import Services, running_services

PLENTY = str(1 << 60)
# The setting that makes a service unable, and the reason that it tells.
UNABLE = {
    "workspace": ("BOATYARD_WORKSPACE_DISK_RESERVE_BYTES", PLENTY, "DISK_FULL"),
    "git": ("BOATYARD_GIT_MIN_FREE_BYTES", PLENTY, "DISK_FULL"),
    "execution": ("BOATYARD_EXECUTION_READ_ONLY_PATHS", "/no/such/agent", "SANDBOX_UNAVAILABLE"),
}


async def troubles(services: Services, name: str) -> list[str]:
    """Ask a node service itself."""
    async with open_channel(services.address(name), services.home.cell_token()) as channel:
        stub = readiness_pb2_grpc.ReadinessServiceStub(channel)
        answer = await stub.GetReadiness(readiness_pb2.GetReadinessRequest(), wait_for_ready=True)
        return [trouble.reason for trouble in answer.troubles]


async def until(services: Services, holds: Callable[[admin_pb2.Cell], bool]) -> admin_pb2.Cell:
    """Return the services' cell as soon as something holds for it."""
    async with (
        asyncio.timeout(60),
        open_channel(services.address("gateway"), services.home.admin_token()) as channel,
    ):
        while True:
            answer = await admin_pb2_grpc.AdminServiceStub(channel).ListCells(admin_pb2.ListCellsRequest())
            if holds(answer.cells[0]):
                return answer.cells[0]
            await asyncio.sleep(0.1)


async def test_a_ready_service_has_no_troubles(services: Services) -> None:
    assert [await troubles(services, name) for name in UNABLE] == [[], [], []]
    await until(services, lambda cell: cell.state == admin_pb2.Cell.STATE_ACTIVE)


@pytest.mark.slow
async def test_a_job_waits_until_every_service_can_do_its_part(tmp_path: Path) -> None:
    broken = {setting: value for setting, value, _ in UNABLE.values()}
    async with running_services(tmp_path, **broken) as services:
        job = await services.submit("true")
        for name, (setting, _, reason) in UNABLE.items():
            told = await until(services, lambda cell, reason=reason: reason in {one.reason for one in cell.troubles})
            assert told.state == admin_pb2.Cell.STATE_NOT_READY
            assert reason in await troubles(services, name)
            assert (await services.job(job.job_id)).state == job_pb2.Job.STATE_PENDING
            services.end(name)
            services.start(name, **{setting: "0" if reason == "DISK_FULL" else ""})
            await services.serving(name)
        scraped = Scraped(services.address("http"), services.home.admin_token())
        assert "# TYPE boatyard_cell_troubles gauge" in scraped.text
        assert (await services.ended(job.job_id)).state == job_pb2.Job.STATE_SUCCEEDED
        assert len((await services.job(job.job_id)).execution_ids) == 1
