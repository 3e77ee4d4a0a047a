"""The coordinators' API, served by this process on a database, and remote ledgers that call it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from boatyard.gateway.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from boatyard.ledger.v1.ledger_pb2_grpc import LedgerServiceStub

from services.common.errors import ServiceError
from services.common.rpc.channel import open_channel
from services.common.rpc.draining import Draining
from services.common.rpc.status import service_error
from services.coordinator.clients import EventBatch, Upstream
from services.coordinator.event_forwarding import EventForwarder
from services.coordinator.ledger import ClaimFilter, RemoteLedger
from services.gateway.cells.store import CellStore
from services.gateway.coordinators.app import registrations
from services.gateway.ledger.events import EventStore
from services.lifecycle.ledger import Lease, Ledger
from tests.kit.ledger import Books
from tests.kit.servers import TOKEN, serving

LEASE_SECONDS = 60.0


@dataclass
class Api:
    """The address of the API, and stubs for it."""

    address: str
    coordinator: CoordinatorServiceStub
    ledger: LedgerServiceStub


@asynccontextmanager
async def coordinator_api(book: Books, *, has_ledger: bool = True) -> AsyncIterator[Api]:
    """Serve the API on a ledger's database; without its LedgerService, as gateways of earlier versions do."""
    draining = Draining()
    served = registrations(
        book.engine,
        cells=CellStore(book.engine, LEASE_SECONDS),
        jobs=book.store,
        events=EventStore(book.engine),
        takes_over=lambda: True,
        notifier=book.notifier,
        draining=draining,
        lease_seconds=LEASE_SECONDS,
        ageing_seconds=0,
    )
    async with (
        serving(*(served if has_ledger else served[:1]), draining=draining) as server,
        open_channel(server.address, TOKEN) as channel,
    ):
        yield Api(server.address, CoordinatorServiceStub(channel), LedgerServiceStub(channel))


class NoEvents:
    """A source of events that has none, because nothing runs."""

    async def of(self, execution_id: str, first: int) -> AsyncGenerator[EventBatch, None]:
        yield EventBatch((), is_last=True)


async def _discard(lease: Lease, execution_id: str, events: EventBatch) -> int:
    return 1


@asynccontextmanager
async def remote_ledger(
    address: str, name: str = "remote", claim_filter: ClaimFilter | None = None, *, is_registered: bool = True
) -> AsyncIterator[RemoteLedger]:
    """Yield the ledger of a coordinator that has just started, without any events."""
    forwarder = EventForwarder(_discard, NoEvents())
    async with Upstream([address], TOKEN) as upstream:
        ledger = RemoteLedger(upstream, name, claim_filter or ClaimFilter(capacity=10), forwarder)
        if is_registered:
            await ledger.register("host")
        try:
            yield ledger
        finally:
            await forwarder.stop()


async def claimed(ledger: Ledger) -> Lease:
    lease = await ledger.claim()
    assert lease
    return lease


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return service_error(error.value)
