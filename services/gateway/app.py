"""Puts the gateway together."""

from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, TypeAlias

from boatyard.gateway.v1 import admin_pb2, catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2
from boatyard.gateway.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from boatyard.gateway.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from boatyard.gateway.v1.checkpoint_pb2_grpc import add_CheckpointServiceServicer_to_server
from boatyard.gateway.v1.job_pb2_grpc import add_JobServiceServicer_to_server
from boatyard.gateway.v1.runtime_pb2_grpc import add_AgentRuntimeServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common import program
from services.common.db.engine import sqlite_url
from services.common.lock import single_instance
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, serve
from services.common.settings import load_settings
from services.gateway import requests
from services.gateway.auth.app import door
from services.gateway.auth.forwarding import PeerToken
from services.gateway.catalog.servicer import CatalogServicer
from services.gateway.catalog.store import CatalogStore
from services.gateway.cells.forgetting import forget_in_time
from services.gateway.cells.here import this_cell
from services.gateway.cells.model import Cell
from services.gateway.cells.servicer import AdminServicer
from services.gateway.cells.state import StateStore
from services.gateway.cells.store import CellStore
from services.gateway.checkpoints.servicer import CheckpointServicer
from services.gateway.checkpoints.store import CheckpointStore
from services.gateway.coordinators import app as coordinators
from services.gateway.coordinators.events import EventStore
from services.gateway.coordinators.place import RemoteMachines
from services.gateway.hooks import app as hooks
from services.gateway.hooks.calls import CallStore
from services.gateway.http.app import PAGES, http_app
from services.gateway.http.clients import node_metrics
from services.gateway.http.server import http_server
from services.gateway.jobs import retention
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.attempts import Retries
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.kinds import load_kinds
from services.gateway.jobs.ledger import SqlLedger
from services.gateway.jobs.notices import Notices
from services.gateway.jobs.servicer import JobServicer
from services.gateway.jobs.standing import JobStandings
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.tickets import Tickets
from services.gateway.jobs.wire import document
from services.gateway.metrics.app import gateway_meters
from services.gateway.opening import opened
from services.gateway.runtime.clients import NodeClients
from services.gateway.runtime.places import Places, places
from services.gateway.runtime.relay import Relay
from services.gateway.runtime.servicer import RuntimeServicer
from services.gateway.settings import GatewaySettings
from services.lifecycle.driver import Driver
from services.lifecycle.nodes import NodeInventory, Nodes, connected
from services.lifecycle.orphans import OrphanReaper
from services.lifecycle.webhooks import Webhooks

Work: TypeAlias = Coroutine[Any, Any, None]


def main() -> None:
    """Run the gateway until it is told to stop."""
    program.run("gateway", _main)


async def _main() -> None:
    settings = load_settings(GatewaySettings)
    directory = settings.home.directory("gateway")
    async with AsyncExitStack() as stack:
        # The one process that may take this cell's own leases back.
        stack.enter_context(single_instance(directory / "lock", f"is the gateway of {directory}"))
        cell = this_cell(directory, settings)
        given = settings.database_url
        url = sqlite_url(directory / "gateway.db") if given is None else given.get_secret_value()
        engine = await stack.enter_async_context(opened(url, cell.cell_id))
        nodes = await stack.enter_async_context(connected(settings))
        changes, draining = Changes(), Draining()
        cells = CellStore(engine, settings.lease_seconds)
        await cells.register(cell)
        meters = await stack.enter_async_context(gateway_meters(engine, cells, cell).watching())
        ledger = await _ledger(engine, cell, changes, settings)
        store, events = JobStore(engine, changes), EventStore(engine)
        works = {
            "notices": Notices(engine, changes).run(),
            **_carrying(ledger, nodes, changes, JobStandings(engine, cell.cell_id), settings),
            **_housekeeping(engine, cell, cells, settings),
        }
        await stack.enter_async_context(program.background_tasks(works))
        here = NodeClients(cell.cell_id, nodes.workspace, nodes.git, nodes.execution)
        found = await stack.enter_async_context(
            places(here, RemoteMachines(store, events, changes), cells, store, settings.client_tls)
        )
        before = door(
            engine,
            [
                *_registrations(engine, store, changes, found=found, draining=draining, settings=settings),
                hooks.registration(engine, store, nodes, settings.webhooks_allowed),
                Registration(
                    admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
                    add_AdminServiceServicer_to_server,
                    AdminServicer(cell, cells, StateStore(engine)),
                ),
                *coordinators.registrations(
                    engine,
                    cells=cells,
                    jobs=store,
                    events=events,
                    takes_over=ledger.takes_over,
                    changes=changes,
                    draining=draining,
                    lease_seconds=settings.lease_seconds,
                    ageing_seconds=settings.ageing_seconds,
                ),
            ],
            cell_id=cell.cell_id,
            admin_token=_admin_token(settings),
            keep_records=timedelta(days=settings.audit_days),
            others=[PeerToken(cell.peer_token)],
            pages=PAGES,
        )
        await stack.enter_async_context(program.background_tasks({"records of calls": before.run()}))
        pages = http_app(meters, node_metrics(nodes), before.authenticator, draining)
        await stack.enter_async_context(http_server(pages, settings.http_listen, settings.server_tls))
        await serve(
            listen=settings.listen,
            registrations=before.registrations,
            authenticator=before.authenticator,
            inspect=before.inspect,
            screen=before.screen,
            around=[*before.around, meters.around],
            tls=settings.server_tls,
            draining=draining,
            reflection=settings.reflection,
        )


async def _ledger(engine: AsyncEngine, cell: Cell, changes: Changes, settings: GatewaySettings) -> SqlLedger:
    """Open the ledger, and have back what this cell held before it was restarted."""
    ledger = SqlLedger(
        engine,
        cell.cell_id,
        changes,
        document,
        lease_seconds=settings.lease_seconds,
        ageing_seconds=settings.ageing_seconds,
    )
    await ledger.take_over_own(cell.host)
    ledger.wait_for_others()
    return ledger


def _carrying(
    ledger: SqlLedger, nodes: Nodes, changes: Changes, standings: JobStandings, settings: GatewaySettings
) -> dict[str, Work]:
    """What carries jobs, and ends on this machine what others carry now."""
    webhooks = Webhooks(settings.webhooks_allowed)
    driver = Driver(ledger, nodes, capacity=settings.max_jobs, webhooks=webhooks, keeping=settings.keeping)
    changes.call_on_work(driver.poke)
    strays = OrphanReaper(NodeInventory(nodes), standings.of, settings.keeping)
    return {"driver": driver.run(), "strays": strays.keep_ended(settings.lease_seconds)}


def _housekeeping(engine: AsyncEngine, cell: Cell, cells: CellStore, settings: GatewaySettings) -> dict[str, Work]:
    """What forgets, each in its time."""
    return {
        "request ids": requests.forget_in_time(engine),
        "jobs that ended long ago": retention.forget_in_time(engine, settings.keep_jobs_days),
        "cells that are gone": forget_in_time(cells, cell, settings.forget_cell_days * 86400),
        "calls of hooks": CallStore(engine).forget_in_time(),
    }


def _registrations(
    engine: AsyncEngine,
    store: JobStore,
    changes: Changes,
    *,
    found: Places,
    draining: Draining,
    settings: GatewaySettings,
) -> list[Registration]:
    admission = Admission(
        engine,
        changes,
        settings.agent_command,
        settings.agent_model,
        load_kinds(settings.kinds_file),
        ageing_seconds=settings.ageing_seconds,
    )
    relay = Relay(store, changes, found)
    return [
        Registration(
            catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
            add_CatalogServiceServicer_to_server,
            CatalogServicer(CatalogStore(engine), Tickets(engine, admission).start),
        ),
        Registration(
            checkpoint_pb2.DESCRIPTOR.services_by_name["CheckpointService"].full_name,
            add_CheckpointServiceServicer_to_server,
            CheckpointServicer(CheckpointStore(engine, changes)),
        ),
        Registration(
            job_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
            add_JobServiceServicer_to_server,
            JobServicer(admission, store, Retries(engine, changes), changes, draining),
        ),
        Registration(
            runtime_pb2.DESCRIPTOR.services_by_name["AgentRuntimeService"].full_name,
            add_AgentRuntimeServiceServicer_to_server,
            RuntimeServicer(admission, store, relay, found, draining),
        ),
    ]


def _admin_token(settings: GatewaySettings) -> str:
    return settings.token.get_secret_value() if settings.token else settings.home.admin_token()
