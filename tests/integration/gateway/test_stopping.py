"""Stopping and restarting a cell by RPC, where nobody would start its services again."""

import pytest
from boatyard.gateway.v1 import admin_pb2
from boatyard.gateway.v1.admin_pb2_grpc import AdminServiceStub

from services.common.errors import FailedPrecondition
from services.common.rpc.channel import open_channel
from tests.kit.catalog import refusal
from tests.kit.services import Services


@pytest.mark.parametrize("names_it", [False, True], ids=["this cell", "by its id"])
async def test_services_that_nobody_supervises_are_not_stopped(services: Services, names_it: bool) -> None:
    async with open_channel(services.address("gateway"), services.home.admin_token()) as channel:
        admin = AdminServiceStub(channel)
        own_id = (await admin.GetStatus(admin_pb2.GetStatusRequest())).cell_id
        cell_id = own_id if names_it else ""
        for call in (
            admin.StopCell(admin_pb2.StopCellRequest(cell_id=cell_id)),
            admin.StopCell(admin_pb2.StopCellRequest(cell_id=cell_id, end_agents=True)),
            admin.RestartCell(admin_pb2.RestartCellRequest(cell_id=cell_id)),
        ):
            refused = await refusal(call, FailedPrecondition)
            assert (refused.reason, refused.metadata["subject"]) == ("NO_SUPERVISOR", own_id)
        assert (await admin.GetStatus(admin_pb2.GetStatusRequest())).cell_id == own_id
