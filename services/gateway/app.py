"""Puts the gateway together."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import structlog
from boatyard.gateway.v1 import admin_pb2, catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2
from boatyard.gateway.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from boatyard.gateway.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from boatyard.gateway.v1.checkpoint_pb2_grpc import add_CheckpointServiceServicer_to_server
from boatyard.gateway.v1.job_pb2_grpc import add_JobServiceServicer_to_server
from boatyard.gateway.v1.runtime_pb2_grpc import add_AgentRuntimeServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common import program
from services.common.db.engine import open_database, sqlite_url
from services.common.db.migrate import migrate
from services.common.errors import StartError, Unavailable
from services.common.ids import kept_id
from services.common.lock import FileLock, LockHeldError
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, serve
from services.common.settings import load_settings
from services.gateway import requests
from services.gateway.auth.app import door
from services.gateway.auth.forwarding import PeerToken
from services.gateway.catalog.servicer import CatalogServicer
from services.gateway.catalog.store import CatalogStore
from services.gateway.cells.forgetting import forget_in_time
from services.gateway.cells.model import Cell
from services.gateway.cells.servicer import AdminServicer
from services.gateway.cells.state import StateStore
from services.gateway.cells.store import CellStore
from services.gateway.checkpoints.servicer import CheckpointServicer
from services.gateway.checkpoints.store import CheckpointStore
from services.gateway.coordinators import app as coordinators
from services.gateway.coordinators.events import EventStore
from services.gateway.coordinators.place import RemoteMachines
from services.gateway.database import MIGRATIONS
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
from services.gateway.runtime.clients import NodeClients
from services.gateway.runtime.places import Places, places
from services.gateway.runtime.relay import Relay
from services.gateway.runtime.servicer import RuntimeServicer
from services.gateway.settings import GatewaySettings
from services.lifecycle.driver import Driver
from services.lifecycle.nodes import Machine, Nodes, connected
from services.lifecycle.strays import Strays
from services.lifecycle.webhooks import AllowList, Webhooks

Work: TypeAlias = Coroutine[Any, Any, None]

_DATABASE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)  # seconds

log = structlog.get_logger()


def main() -> None:
    """Run the gateway until it is told to stop."""
    program.run("gateway", _main)


async def _main() -> None:
    settings = load_settings(GatewaySettings)
    directory = settings.home.directory("gateway")
    async with AsyncExitStack() as stack:
        try:
            # The lock makes this the one process that may take this cell's own leases back.
            stack.callback(FileLock(directory / "lock").release)
        except LockHeldError as error:
            raise StartError(f"process {error.pid} already is the gateway of {directory}") from None
        cell = _cell(directory, settings)
        engine = await _database(stack, directory, settings, cell)
        nodes = await stack.enter_async_context(
            connected(
                settings.home.cell_token(),
                workspace=settings.workspace_address,
                git=settings.git_address,
                execution=settings.execution_address,
                patience_seconds=settings.node_patience_seconds,
            )
        )
        changes, draining = Changes(), Draining()
        cells = CellStore(engine, settings.lease_seconds)
        await cells.register(cell)
        meters = await stack.enter_async_context(gateway_meters(engine, cells, cell).watching())
        ledger = await _ledger(engine, cell, changes, settings)
        store, events = JobStore(engine, changes), EventStore(engine)
        for work, name in (
            (Notices(engine, changes).run(), "notices"),
            *_carrying(ledger, nodes, changes, JobStandings(engine, cell.cell_id), settings),
            *_housekeeping(engine, cell, cells, settings),
        ):
            await stack.enter_async_context(_beside(work, name))
        here = NodeClients(cell.cell_id, nodes.workspace, nodes.git, nodes.execution)
        found = await stack.enter_async_context(
            places(here, RemoteMachines(store, events, changes), cells, store, settings.client_tls)
        )
        before = door(
            engine,
            [
                *_registrations(engine, store, changes, found=found, draining=draining, settings=settings),
                hooks.registration(engine, store, nodes, AllowList.parse(settings.webhook_allow)),
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
        await stack.enter_async_context(_beside(before.run(), "records of calls"))
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


async def _database(stack: AsyncExitStack, directory: Path, settings: GatewaySettings, cell: Cell) -> AsyncEngine:
    """Open the database, of the newest schema. Raises StartError when it does not come."""
    given = settings.database_url
    url = sqlite_url(directory / "gateway.db") if given is None else given.get_secret_value()
    engine = open_database(url, f"boatyard {cell.cell_id}")
    stack.push_async_callback(engine.dispose)
    await _await_database(engine)
    await migrate(engine, MIGRATIONS)
    return engine


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
) -> Iterator[tuple[Work, str]]:
    """What carries jobs, and ends on this machine what others carry now."""
    webhooks = Webhooks(AllowList.parse(settings.webhook_allow))
    driver = Driver(ledger, nodes, capacity=settings.max_jobs, webhooks=webhooks, keeping=settings.keeping)
    changes.call_on_work(driver.poke)
    strays = Strays(Machine(nodes), standings.of, settings.keeping)
    yield driver.run(), "driver"
    yield strays.keep_ended(settings.lease_seconds), "strays"


def _housekeeping(
    engine: AsyncEngine, cell: Cell, cells: CellStore, settings: GatewaySettings
) -> Iterator[tuple[Work, str]]:
    """What forgets, each in its time."""
    yield requests.forget_in_time(engine), "request ids"
    yield retention.forget_in_time(engine, settings.keep_jobs_days), "jobs that ended long ago"
    yield forget_in_time(cells, cell, settings.forget_cell_days * 86400), "cells that are gone"
    yield CallStore(engine).forget_in_time(), "calls of hooks"


async def _await_database(engine: AsyncEngine) -> None:
    """Wait for a database that may be starting too. Raises StartError when it does not come."""
    for seconds in (*_DATABASE_PAUSES, 0.0):
        try:
            async with engine.connect():
                return
        except Unavailable as error:
            if not seconds:
                raise StartError(f"cannot reach the database: {error.__cause__}") from error
            log.warning("waiting for the database", error=str(error.__cause__))
            await asyncio.sleep(seconds)


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


def _cell(directory: Path, settings: GatewaySettings) -> Cell:
    return Cell(
        cell_id=kept_id(directory / "cell-id", "cell"),
        host=socket.gethostname(),
        version=version("boatyard"),
        capacity=settings.max_jobs,
        address=settings.advertised_address or _reachable(settings.listen, socket.gethostname()),
        peer_token=secrets.token_urlsafe(32),
    )


def _reachable(listen: str, host: str) -> str:
    """Return where others reach what listens at `listen`: by the host's name where that is every address."""
    name, _, port = listen.rpartition(":")
    return f"{host}:{port}" if name in {"0.0.0.0", "[::]"} else listen  # noqa: S104 - nothing listens here


@asynccontextmanager
async def _beside(work: Work, name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
