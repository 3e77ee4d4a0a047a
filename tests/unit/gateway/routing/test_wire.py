"""The options by which the contract says where an RPC is served, and what is done with messages of any type."""

import pytest
from boatyard.gateway.v1 import runtime_pb2 as pb
from sqlalchemy.ext.asyncio import create_async_engine

from services.common.db.paging import Page
from services.common.errors import Unavailable
from services.gateway.cells.store import CellStore
from services.gateway.jobs.store import JobStore
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.routing.owners import OwnerFinder
from services.gateway.routing.wire import Rpc, count_items, page_request, rpcs_of
from services.gateway.wire.requests import page_from_proto

SERVICE = pb.DESCRIPTOR.services_by_name["AgentRuntimeService"]
_NOWHERE = create_async_engine("sqlite+aiosqlite://")  # it is never called
FINDERS = OwnerFinder(JobStore(_NOWHERE, JobNotifier()), CellStore(_NOWHERE, 20)).finders
RPCS = {
    rpc.name: (rpc, method)
    for rpc, method in zip(rpcs_of(SERVICE), SERVICE.methods, strict=True)
    if rpc.cell_of or rpc.items_of_cells or rpc.resumption
}


@pytest.mark.parametrize("name", RPCS)
def test_the_contract_names_fields_that_exist(name: str) -> None:
    rpc, method = RPCS[name]
    request, response = (set(side.fields_by_name) for side in (method.input_type, method.output_type))
    assert set(rpc.cell_of) <= FINDERS.keys() & request
    assert not (rpc.cell_of and rpc.items_of_cells)
    if rpc.items_of_cells:
        assert "unreachable_cell_ids" in response
        assert ({"page_size", "page_token"} <= request) == ("next_page_token" in response) == rpc.has_pages
        assert count_items(rpc.response(), rpc.items_of_cells) == 0
    if rpc.resumption:
        assert rpc.response_streaming
        assert rpc.resumption.request_field in {"", *request}
        assert rpc.resumption.response_field in response
    if rpc.request_streaming:
        assert rpc.cell_of == ("execution_id",), "its requests can be sent to one cell only, so that must be known"


def test_what_lives_on_a_cell_is_routed() -> None:
    """Whoever adds an RPC about one of these and no option is asked whether the database alone answers it."""
    from_the_database = {"GetExecution", "CancelExecution", "ListExecutions", "Execute"}
    assert {method.name for method in SERVICE.methods} == from_the_database | RPCS.keys()


def watch() -> Rpc:
    return RPCS["WatchExecution"][0]


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_stream_that_was_cut_resumes_after_the_last_response(as_bytes: bool) -> None:
    request, last = pb.WatchExecutionRequest(from_sequence=3), pb.WatchExecutionResponse(next_sequence=9)
    cut = Unavailable("DRAINING", "it stops")
    assert watch().with_position(cut, request, None).resume_from == 3
    assert watch().with_position(cut, request, last.SerializeToString() if as_bytes else last).resume_from == 9
    assert watch().with_position(cut.at(5), request, last).resume_from == 5, "who knows better is believed"


def test_another_page_of_a_list_has_the_same_filter() -> None:
    request = pb.ListWorkspacesRequest(project_id="a", states=[1, 2], page_size=7)
    again = page_request(request, 3, "token")
    assert (again.project_id, list(again.states), again.page_size, again.page_token) == ("a", [1, 2], 3, "token")
    token = page_from_proto(request).token_after(("cell-1", ""))
    assert page_from_proto(page_request(request, 3, token)) == Page(
        3, ("cell-1", ""), page_from_proto(request).filter_hash
    )


def test_items_are_counted_wherever_they_are() -> None:
    usage = pb.CellUsage(workspaces=[{}, {}])
    assert count_items(pb.ListWorkspaceUsageResponse(cells=[usage, usage]), "cells.workspaces") == 4
