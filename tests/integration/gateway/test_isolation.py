"""A gateway knows what its node lets jobs choose, and refuses the rest when a job is submitted."""

import asyncio

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.gateway.v1 import admin_pb2
from boatyard.gateway.v1.admin_pb2_grpc import AdminServiceStub

from services.agent.settings import AgentSettings, CommandEngine
from services.common.errors import FailedPrecondition
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.lifecycle.driver import Driver
from services.lifecycle.model.states import JobState
from services.lifecycle.nodes import Nodes
from services.sandbox.spec import Network
from tests.integration.gateway.test_driver import driving, ended
from tests.kit.ledger import Books, set_job
from tests.kit.services import Services


async def test_what_the_node_does_not_allow_is_refused_at_submission(services: Services) -> None:
    async with (
        asyncio.timeout(30),
        open_channel(services.address("gateway"), services.home.admin_token()) as channel,
    ):
        admin = AdminServiceStub(channel)
        while not (status := await admin.GetStatus(admin_pb2.GetStatusRequest())).allowed_tiers:
            await asyncio.sleep(0.05)
        (cell,) = (await admin.ListCells(admin_pb2.ListCellsRequest())).cells
    assert list(cell.allowed_tiers) == list(status.allowed_tiers)
    assert sandbox_pb2.SANDBOX_TIER_NONE in cell.allowed_tiers
    assert list(cell.allowed_networks) == [sandbox_pb2.NETWORK_NONE, sandbox_pb2.NETWORK_ALLOW_LIST]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.submit("true", agent={"network": sandbox_pb2.NETWORK_OPEN})
    error = service_error(caught.value)
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "NETWORK_NOT_ALLOWED"
    assert "BOATYARD_EXECUTION_ALLOWED_NETWORKS" in error.message


async def test_a_queued_job_of_the_version_before_ends_with_the_nodes_reason(book: Books, nodes: Nodes) -> None:
    """No cell has decided anything about it; its node names the setting."""
    settings = AgentSettings(engine=CommandEngine(line="true"), network=Network.OPEN)
    job_id = (await book.admit(agent=settings)).spec.job_id
    await set_job(book, job_id, sandbox_tier="", network="")
    async with driving(Driver(await book.cell("cell"), nodes, capacity=1, poll_seconds=0.02)):
        job = await ended(book, job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "NETWORK_NOT_ALLOWED")
    assert "BOATYARD_EXECUTION_ALLOWED_NETWORKS allows allow_list, none" in job.message
