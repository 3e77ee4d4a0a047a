"""A call is served by the cell that has what it is about, whichever gateway is called: real servers on one database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.gateway.v1.runtime_pb2_grpc import (
    AgentRuntimeServiceServicer,
    AgentRuntimeServiceStub,
    add_AgentRuntimeServiceServicer_to_server,
)
from boatyard.git.v1 import git_pb2
from sqlalchemy import update

from services.common.errors import Invalid, NotFound, ServiceError, Unavailable
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY
from services.common.rpc.channel import open_channel
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, RunningServer
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.gateway.cells.store import CellStore
from services.gateway.door.authenticator import AdminToken, GatewayAuthenticator
from services.gateway.door.wire import required_roles
from services.gateway.ledger.events import EventStore
from services.gateway.routing.forwarding import FORWARDED_METADATA_KEY, PeerToken
from services.gateway.routing.owners import OwnerFinder
from services.gateway.routing.peers import Peers
from services.gateway.routing.router import OnAnotherCell, Router
from services.gateway.routing.wire import rpcs_of
from services.gateway.runtime.event_sources import ReceivedEvents
from services.gateway.runtime.relay import Relay
from services.gateway.runtime.stand_ins import AwayStandIn, CoordinatorStandIn
from services.gateway.schema.jobs import executions
from services.gateway.values.cells import Cell, CellKind
from services.gateway.values.principal import Principal, current_principal
from services.lifecycle.model.states import ExecutionState
from tests.kit.ledger import Books, age_heartbeat, books
from tests.kit.servers import TOKEN, serving

SERVICE = pb.DESCRIPTOR.services_by_name["AgentRuntimeService"]
LEASE_SECONDS = 20.0


class Servicer(AgentRuntimeServiceServicer):
    """Serves what is on one cell, and keeps what it was asked."""

    def __init__(self, cell_id: str, draining: Draining) -> None:
        self.cell_id = cell_id
        self.draining = draining
        self.snapshots: list[str] = []
        self.asked: list[Any] = []
        self.callers: list[Principal] = []

    def note(self, request: Any) -> None:
        self.asked.append(request)
        self.callers.append(current_principal())

    async def SendMessage(self, request, context):  # noqa: N802 - the contract's name
        self.note(request)
        if request.text == "too long":
            raise NotFound("permission", "x")
        return pb.SendMessageResponse()

    async def WatchExecution(self, request, context):  # noqa: N802 - the contract's name
        self.note(request)

        async def updates():
            for sequence in range(request.from_sequence, request.from_sequence + 3):
                yield pb.WatchExecutionResponse(events=[event_pb2.Event(sequence=sequence)], next_sequence=sequence + 1)
            if request.follow:
                await asyncio.Event().wait()

        async for message in self.draining.stream(updates(), start=0, position_after=lambda one: one.next_sequence):
            yield message

    async def AttachExecution(self, requests, context):  # noqa: N802 - the contract's name
        async for request in requests:
            self.note(request)
            yield pb.AttachExecutionResponse(taken_bytes=len(request.input))

    async def GetSnapshot(self, request, context):  # noqa: N802 - the contract's name
        self.note(request)
        if request.snapshot_id not in self.snapshots:
            raise NotFound("snapshot", request.snapshot_id)
        return pb.GetSnapshotResponse(snapshot=git_pb2.Snapshot(snapshot_id=request.snapshot_id))

    async def DeleteSnapshot(self, request, context):  # noqa: N802 - the contract's name
        self.note(request)
        if request.snapshot_id in self.snapshots:
            self.snapshots.remove(request.snapshot_id)
        return pb.DeleteSnapshotResponse()

    async def ListSnapshots(self, request, context):  # noqa: N802 - the contract's name
        self.note(request)
        first = int(request.page_token or 0)
        page = self.snapshots[first : first + request.page_size]
        more = first + len(page) < len(self.snapshots)
        return pb.ListSnapshotsResponse(
            snapshots=[git_pb2.Snapshot(snapshot_id=each) for each in page],
            cell_ids=dict.fromkeys(page, self.cell_id),
            next_page_token=str(first + len(page)) if more else "",
        )


@dataclass
class RoutedCell:
    """A gateway as far as routing is concerned."""

    servicer: Servicer
    server: RunningServer
    stub: AgentRuntimeServiceStub
    channel: grpc.aio.Channel
    draining: Draining


@dataclass
class Fleet:
    """Cells on one database."""

    book: Books
    cells: CellStore
    stack: AsyncExitStack
    running: dict[str, RoutedCell] = field(default_factory=dict)

    async def start(self, cell_id: str) -> RoutedCell:
        draining = Draining()
        peers = Peers(cell_id, [SERVICE], draining, None)
        self.stack.push_async_callback(peers.aclose)
        store, notifier = self.book.store, self.book.notifier
        received = Relay(store, notifier, ReceivedEvents(store, EventStore(self.book.engine), notifier))
        stand_ins = {
            CellKind.COORDINATOR: CoordinatorStandIn(store, received, draining),
            CellKind.GATEWAY: AwayStandIn(store),
        }
        router = Router(cell_id, self.cells, OwnerFinder(store, self.cells), peers, stand_ins)
        servicer = Servicer(cell_id, draining)
        registration = Registration(
            SERVICE.full_name,
            add_AgentRuntimeServiceServicer_to_server,
            router.routed(servicer, rpcs_of(SERVICE)),
        )
        authenticator = GatewayAuthenticator(
            [AdminToken(TOKEN), PeerToken(f"peer-{cell_id}")], required_roles([SERVICE.full_name])
        )
        serve = serving(registration, authenticator=authenticator, draining=draining)
        server = await self.stack.enter_async_context(serve)
        await self.register(cell_id, server.address)
        channel = await self.stack.enter_async_context(open_channel(server.address, TOKEN))
        cell = self.running[cell_id] = RoutedCell(servicer, server, AgentRuntimeServiceStub(channel), channel, draining)
        return cell

    async def register(self, cell_id: str, address: str = "", kind: CellKind = CellKind.GATEWAY) -> None:
        cell = Cell(
            cell_id=cell_id,
            kind=kind,
            host="here",
            version="1",
            capacity=1,
            address=address,
            peer_token=f"peer-{cell_id}",
        )
        await self.cells.register(cell)

    async def execution_on(self, cell_id: str, **values: Any) -> str:
        view = await self.book.admit()
        execution_id = view.executions[0].execution_id
        columns = {"cell_id": cell_id, "state": ExecutionState.RUNNING, **values}
        await self.place(execution_id, **columns)
        return execution_id

    async def place(self, execution_id: str, **values: Any) -> None:
        this = update(executions).where(executions.c.execution_id == execution_id)
        async with self.book.engine.begin() as connection:
            await connection.execute(this.values(**values))


@asynccontextmanager
async def fleet_on(directory: Path) -> AsyncIterator[Fleet]:
    async with books(f"sqlite:///{directory}/gateway.db") as book, AsyncExitStack() as stack:
        yield Fleet(book, CellStore(book.engine, LEASE_SECONDS), stack)


@pytest_asyncio.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_on(tmp_path) as running:
        for cell_id in ("cell-a", "cell-b"):
            await running.start(cell_id)
        yield running


async def refused(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return service_error(error.value)


async def test_a_call_is_forwarded_whole_and_in_the_callers_name(fleet: Fleet) -> None:
    a, b = fleet.running.values()
    execution_id = await fleet.execution_on("cell-b")
    request = pb.SendMessageRequest(execution_id=execution_id, message_id="m", text="hello")
    of_a_later_version = request.SerializeToString() + b"\xfa\x01\x05later"
    send = a.channel.unary_unary("/boatyard.gateway.v1.AgentRuntimeService/SendMessage")
    await send(of_a_later_version)

    assert a.servicer.asked == []
    assert [one.SerializeToString() for one in b.servicer.asked] == [of_a_later_version]
    (caller,) = b.servicer.callers
    assert (caller.name, caller.role, caller.forwarded_by) == ("admin", "ADMIN", "cell-a")
    request.text = "too long"
    refusal = await refused(a.stub.SendMessage(request))
    assert (refusal.reason, refusal.metadata["resource_name"]) == ("PERMISSION_NOT_FOUND", "x"), "and so is a refusal"


async def test_a_forwarded_call_is_served_where_it_arrives(fleet: Fleet) -> None:
    a, b = fleet.running.values()
    elsewhere = await fleet.execution_on("cell-a")
    caller = '{"name": "ann", "role": "ADMIN", "projects": null, "token_id": "", "origin": "", "cell_id": "cell-x"}'
    metadata = ((AUTHORIZATION_METADATA_KEY, "Bearer peer-cell-b"), (FORWARDED_METADATA_KEY, caller))
    async with open_channel(b.server.address) as channel:
        request = pb.SendMessageRequest(execution_id=elsewhere, message_id="m", text="hello")
        await AgentRuntimeServiceStub(channel).SendMessage(request, metadata=metadata)
        await AgentRuntimeServiceStub(channel).ListSnapshots(pb.ListSnapshotsRequest(), metadata=metadata)
    assert (len(a.servicer.asked), len(b.servicer.asked)) == (0, 2)


@pytest.mark.parametrize("stops", ["its cell", "the gateway that is called", "its cell, without a word"])
async def test_a_stream_that_is_cut_says_where_to_resume(fleet: Fleet, stops: str) -> None:
    a, b = fleet.running.values()
    execution_id = await fleet.execution_on("cell-b")
    request = pb.WatchExecutionRequest(execution_id=execution_id, from_sequence=7, follow=True)
    sequences = []

    async def watch() -> None:
        async with streaming(a.stub.WatchExecution(request)) as messages:
            async for message in messages:
                sequences.extend(event.sequence for event in message.events)
                if len(sequences) == 3:
                    await stop()

    async def stop() -> None:
        match stops:
            case "its cell":
                b.draining.begin()
            case "the gateway that is called":
                a.draining.begin()
            case _:
                await asyncio.gather(*(server.stop(0) for server in b.server._servers))

    cut = await refused(watch())
    assert sequences == [7, 8, 9]
    assert isinstance(cut, Unavailable)
    assert (cut.reason, cut.resume_from) == ("CELL_UNAVAILABLE" if "word" in stops else "DRAINING", 10)
    assert cut.retry_after > 0


async def test_both_ways_of_a_stream_are_forwarded(fleet: Fleet) -> None:
    a, b = fleet.running.values()
    execution_id = await fleet.execution_on("cell-b")
    typed = [pb.AttachExecutionRequest(execution_id=execution_id), pb.AttachExecutionRequest(input=b"abc")]
    async with streaming(a.stub.AttachExecution(iter(typed))) as messages:
        assert [message.taken_bytes async for message in messages] == [0, 3]
    assert b.servicer.asked == typed
    async with streaming(a.stub.AttachExecution(iter([]))) as messages:
        assert [message async for message in messages] == [], "whoever says nothing is answered here"


async def test_a_later_message_that_breaks_a_rule_is_refused_with_what_is_wrong(fleet: Fleet) -> None:
    a, _ = fleet.running.values()
    execution_id = await fleet.execution_on("cell-b")
    typed = [pb.AttachExecutionRequest(execution_id=execution_id), pb.AttachExecutionRequest(input=bytes(70_000))]

    async def attach() -> None:
        async with streaming(a.stub.AttachExecution(iter(typed))) as messages:
            async for _ in messages:
                pass

    refusal = await refused(attach())
    assert isinstance(refusal, Invalid)
    assert [field for field, _ in refusal.violations] == ["input"]


async def test_who_waits_for_an_execution_is_sent_on_when_it_begins_on_another_cell(fleet: Fleet) -> None:
    a, b = fleet.running.values()
    execution_id = await fleet.execution_on("", state=ExecutionState.PENDING)

    async def waits(request, context):
        yield pb.WatchExecutionResponse()  # a heartbeat
        await fleet.place(execution_id, cell_id="cell-b", state=ExecutionState.RUNNING)
        raise OnAnotherCell

    router = Router(
        "cell-a", fleet.cells, OwnerFinder(fleet.book.store, fleet.cells), Peers("cell-a", [], a.draining, None), {}
    )
    a.servicer.WatchExecution = waits
    registration = Registration(
        "x", add_AgentRuntimeServiceServicer_to_server, router.routed(a.servicer, rpcs_of(SERVICE))
    )
    async with serving(registration) as server, open_channel(server.address, TOKEN) as channel:
        request = pb.WatchExecutionRequest(execution_id=execution_id, from_sequence=1)
        async with streaming(AgentRuntimeServiceStub(channel).WatchExecution(request)) as messages:
            seen = [[event.sequence for event in message.events] async for message in messages]
    assert seen == [[], [1], [2], [3]]
    assert b.servicer.asked == [request]


async def test_what_no_row_names_is_looked_for_on_every_cell(fleet: Fleet) -> None:
    a, b = fleet.running.values()
    b.servicer.snapshots = ["snap-1"]
    found = await a.stub.GetSnapshot(pb.GetSnapshotRequest(snapshot_id="snap-1"))
    assert found.snapshot.snapshot_id == "snap-1"
    assert (
        await refused(a.stub.GetSnapshot(pb.GetSnapshotRequest(snapshot_id="snap-2")))
    ).reason == "SNAPSHOT_NOT_FOUND"
    await a.stub.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id="snap-1"))
    assert b.servicer.snapshots == []

    await fleet.register("cell-0", "127.0.0.1:1")
    await age_heartbeat(fleet.book, "cell-0", 10 * LEASE_SECONDS)
    refusal = await refused(a.stub.GetSnapshot(pb.GetSnapshotRequest(snapshot_id="snap-1")))
    assert (refusal.reason, refusal.metadata["cell_id"]) == ("CELL_UNAVAILABLE", "cell-0"), "it may have it"


async def test_lists_go_from_cell_to_cell(fleet: Fleet) -> None:
    a, b = fleet.running.values()
    a.servicer.snapshots = ["snap-1", "snap-2", "snap-3"]
    b.servicer.snapshots = ["snap-4", "snap-5"]
    await fleet.register("cell-c", "127.0.0.1:1")
    await fleet.register("machine", kind=CellKind.COORDINATOR)
    pages, unreachable, cell_ids, token = [], set(), {}, ""
    while not pages or token:
        page = await b.stub.ListSnapshots(pb.ListSnapshotsRequest(page_size=2, page_token=token))
        pages.append([snapshot.snapshot_id for snapshot in page.snapshots])
        cell_ids.update(page.cell_ids)
        unreachable.update(page.unreachable_cell_ids)
        token = page.next_page_token
    assert pages == [["snap-1", "snap-2"], ["snap-3", "snap-4"], ["snap-5"]]
    assert (cell_ids["snap-3"], cell_ids["snap-4"]) == ("cell-a", "cell-b")
    assert unreachable == {"cell-c"}


async def test_a_coordinators_machine_is_answered_for_from_what_it_sent(fleet: Fleet) -> None:
    a, _ = fleet.running.values()
    await fleet.register("machine", kind=CellKind.COORDINATOR)
    execution_id = await fleet.execution_on("machine")
    message = pb.SendMessageRequest(execution_id=execution_id, message_id="m", text="go on")
    refusal = await refused(a.stub.SendMessage(message))
    assert (refusal.reason, refusal.metadata["subject"]) == ("ON_COORDINATOR", "machine")
    async with streaming(a.stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id))) as messages:
        assert [message async for message in messages] == [], "it has sent nothing yet"


async def test_who_follows_an_execution_that_was_lost_with_its_cell_gets_its_end(fleet: Fleet) -> None:
    a, _ = fleet.running.values()
    await fleet.register("cell-c", "127.0.0.1:1")
    execution_id = await fleet.execution_on("cell-c")
    request = pb.WatchExecutionRequest(execution_id=execution_id, from_sequence=4, follow=True)

    async def watched() -> list[pb.WatchExecutionResponse]:
        async with streaming(a.stub.WatchExecution(request)) as messages:
            return [message async for message in messages]

    away = await refused(watched())
    assert (away.reason, away.resume_from) == ("CELL_UNAVAILABLE", 4), "it may come back"
    await fleet.place(execution_id, state=ExecutionState.FAILED, reason="NODE_LOST")
    (last,) = await watched()
    assert last.end.reason == "NODE_LOST"
    request.follow = False
    assert (await refused(watched())).reason == "CELL_UNAVAILABLE", "what it wrote is there"
