"""Coordinators of earlier versions: what they are told, what becomes of their jobs, and what they can hold up."""

import pytest
from boatyard.ledger.v1 import ledger_pb2

from services.common.errors import ServiceError
from services.common.rpc.channel import open_channel
from services.coordinator.ledger import RemoteLedger
from services.gateway.cells.store import CellStore
from services.gateway.values.cells import Cell
from services.lifecycle.model.states import JobState
from tests.kit.coordinators import LEASE_SECONDS, Api, claimed, refusal
from tests.kit.ledger import Books, expire_leases
from tests.kit.servers import TOKEN


async def earlier_calls(api: Api, coordinator_id: str = "remote") -> ServiceError:
    """Call as a coordinator of version 0.1 does, which waits 3 s for its refusal."""
    path = "/boatyard.gateway.v1.LedgerService/ReadStandings"
    async with open_channel(api.address, TOKEN) as channel:
        request = ledger_pb2.ReadJobStatusesRequest(coordinator_id=coordinator_id)
        call = channel.unary_unary(path, request_serializer=type(request).SerializeToString)
        return await refusal(call(request))


@pytest.mark.slow
@pytest.mark.parametrize("has_begun", [False, True], ids=["not begun", "begun"])
async def test_jobs_and_cell_of_an_earlier_coordinator_say_so(
    book: Books, api: Api, remote: RemoteLedger, has_begun: bool
) -> None:
    await book.admit()
    lease = await claimed(remote)
    if has_begun:
        await remote.begin_stage(lease, "base")
    for _ in range(2):
        refused = await earlier_calls(api)
        assert refused.reason == "COORDINATOR_VERSION"
    (cell,) = [cell for cell in await CellStore(book.engine, LEASE_SECONDS).all() if cell.cell_id == "remote"]
    assert [(trouble.reason, trouble.message) for trouble in cell.troubles] == [(refused.reason, refused.message)]
    job = await book.store.job(lease.job_id)
    if has_begun:
        assert job.state is JobState.RUNNING
        assert [stage.message for stage in job.timeline if stage.name == "version"] == [refused.message]
        await expire_leases(book)  # as when it is stopped
    taken = await claimed(await book.cell("elsewhere"))
    assert (taken.job_id, taken.attempt) == (lease.job_id, 2)
    await remote.register("host")
    (cell,) = [cell for cell in await CellStore(book.engine, LEASE_SECONDS).all() if cell.cell_id == "remote"]
    assert cell.troubles == (), "it has been upgraded"


@pytest.mark.slow
async def test_it_says_nothing_of_a_gateways_cell(book: Books, api: Api) -> None:
    cells = CellStore(book.engine, LEASE_SECONDS)
    await cells.register(Cell(cell_id="gateway", host="h", version="1", capacity=1, address="", peer_token=""))
    await book.admit()
    lease = await claimed(await book.cell("gateway"))
    refused = await earlier_calls(api, "gateway")
    assert refused.reason == "COORDINATOR_VERSION"
    (cell,) = await cells.all()
    assert cell.troubles == ()
    assert (await book.store.job(lease.job_id)).state is JobState.RUNNING
