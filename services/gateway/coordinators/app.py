"""Assembles the services that coordinators call."""

from collections.abc import Callable
from typing import Final

from boatyard.gateway.v1 import coordinator_pb2
from boatyard.gateway.v1.coordinator_pb2_grpc import add_CoordinatorServiceServicer_to_server
from boatyard.ledger.v1 import ledger_pb2
from boatyard.ledger.v1.ledger_pb2_grpc import add_LedgerServiceServicer_to_server
from grpc import aio
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration
from services.gateway.cells.store import CellStore
from services.gateway.coordinators.ledger import wire as ledger_wire
from services.gateway.coordinators.ledger.servicer import EARLIER_METHODS, EarlierLedgerServicer, LedgerServicer
from services.gateway.coordinators.ledgers import CoordinatorLedgers
from services.gateway.coordinators.servicer import CoordinatorServicer
from services.gateway.coordinators.store import CoordinatorStore
from services.gateway.coordinators.versions import Versions
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.wire import job_document
from services.gateway.ledger.events import EventStore
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.values.principal import Role
from services.gateway.wire.events import check_events

EARLIER_PATHS: Final = dict.fromkeys(EARLIER_METHODS, Role.COORDINATOR)
"""The role that each path requires at which coordinators of earlier versions call."""


def registrations(
    engine: AsyncEngine,
    *,
    cells: CellStore,
    jobs: JobStore,
    events: EventStore,
    takes_over: Callable[[], bool],
    notifier: JobNotifier,
    draining: Draining,
    lease_seconds: float,
    ageing_seconds: float,
) -> list[Registration]:
    """Return the services for coordinators; `lease_seconds` is how long one keeps a job without a heartbeat.

    `ageing_seconds` is the waiting time that one point of priority is worth; `takes_over` returns True while claimers
    may take jobs whose lease others have lost.
    """
    store = CoordinatorStore(
        engine, notifier, events, takes_over=takes_over, lease_seconds=lease_seconds, ageing_seconds=ageing_seconds
    )
    versions = Versions(cells, store)
    ledgers = CoordinatorLedgers(engine, store, notifier, job_document, lease_seconds)

    def add_ledger(servicer: LedgerServicer, server: aio.Server) -> None:
        add_LedgerServiceServicer_to_server(servicer, server)
        EarlierLedgerServicer(versions).add_to_server(server)

    return [
        Registration(
            coordinator_pb2.DESCRIPTOR.services_by_name["CoordinatorService"].full_name,
            add_CoordinatorServiceServicer_to_server,
            CoordinatorServicer(store, ledgers, versions, cells=cells, jobs=jobs, notifier=notifier, draining=draining),
            {coordinator_pb2.AppendEventsRequest.DESCRIPTOR.full_name: check_events},
            keeps_jobs=True,
        ),
        Registration(
            ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"].full_name,
            add_ledger,
            LedgerServicer(store, ledgers, versions),
            ledger_wire.CHECKS,
            keeps_jobs=True,
        ),
    ]
