"""Puts the gateway together."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import structlog
from boatyard.execution.v1 import execution_pb2
from boatyard.gateway.v1 import admin_pb2, catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2
from boatyard.gateway.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from boatyard.gateway.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from boatyard.gateway.v1.checkpoint_pb2_grpc import add_CheckpointServiceServicer_to_server
from boatyard.gateway.v1.job_pb2_grpc import add_JobServiceServicer_to_server
from boatyard.gateway.v1.runtime_pb2_grpc import add_AgentRuntimeServiceServicer_to_server
from boatyard.git.v1 import git_pb2
from boatyard.workspace.v1 import workspace_pb2
from google.protobuf.descriptor import ServiceDescriptor
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common import program
from services.common.db.engine import open_database, sqlite_url
from services.common.db.migrate import migrate
from services.common.errors import StartError, Unavailable
from services.common.ids import new_id
from services.common.lock import FileLock, LockHeldError
from services.common.rpc.channel import open_channel
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
from services.gateway.hooks import app as hooks
from services.gateway.hooks.calls import CallStore
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
from services.gateway.runtime.clients import NodeClients
from services.gateway.runtime.places import Places, places
from services.gateway.runtime.relay import Relay
from services.gateway.runtime.servicer import RuntimeServicer
from services.gateway.settings import GatewaySettings
from services.lifecycle.driver import Driver
from services.lifecycle.nodes import Machine, Nodes, Patience
from services.lifecycle.strays import Strays
from services.lifecycle.webhooks import AllowList, Webhooks

_WORKSPACE: ServiceDescriptor = workspace_pb2.DESCRIPTOR.services_by_name["WorkspaceService"]
_GIT: ServiceDescriptor = git_pb2.DESCRIPTOR.services_by_name["GitService"]
_EXECUTION: ServiceDescriptor = execution_pb2.DESCRIPTOR.services_by_name["ExecutionService"]


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
        url = settings.database_url
        cell = _cell(directory, settings)
        engine = open_database(
            sqlite_url(directory / "gateway.db") if url is None else url.get_secret_value(), f"boatyard {cell.cell_id}"
        )
        stack.push_async_callback(engine.dispose)
        await _await_database(engine)
        await migrate(engine, "services.gateway.migrations")
        nodes = await _nodes(stack, settings)
        changes, draining = Changes(), Draining()
        cells = CellStore(engine, settings.lease_seconds)
        await cells.register(cell)
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
        webhooks = Webhooks(AllowList.parse(settings.webhook_allow))
        driver = Driver(ledger, nodes, capacity=settings.max_jobs, webhooks=webhooks, keeping=settings.keeping)
        changes.call_on_work(driver.poke)
        await stack.enter_async_context(_beside(Notices(engine, changes).run(), "notices"))
        await stack.enter_async_context(_beside(driver.run(), "driver"))
        strays = Strays(Machine(nodes), JobStandings(engine, cell.cell_id).of, settings.keeping)
        await stack.enter_async_context(_beside(strays.keep_ended(settings.lease_seconds), "strays"))
        await stack.enter_async_context(_beside(requests.forget_in_time(engine), "request ids"))
        await stack.enter_async_context(
            _beside(retention.forget_in_time(engine, settings.keep_jobs_days), "jobs that ended long ago")
        )
        gone = forget_in_time(cells, cell, settings.forget_cell_days * 86400)
        await stack.enter_async_context(_beside(gone, "cells that are gone"))
        await stack.enter_async_context(_beside(CallStore(engine).forget_in_time(), "calls of hooks"))
        store = JobStore(engine, changes)
        events = EventStore(engine)
        here = NodeClients(cell.cell_id, nodes.workspace, nodes.git, nodes.execution)
        found = await stack.enter_async_context(
            places(here, RemoteMachines(store, events, changes), cells, store, settings.client_tls)
        )
        registrations = [
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
        ]
        before = door(
            engine,
            registrations,
            cell_id=cell.cell_id,
            admin_token=_admin_token(settings),
            keep_records=timedelta(days=settings.audit_days),
            others=[PeerToken(cell.peer_token)],
        )
        await stack.enter_async_context(_beside(before.run(), "records of calls"))
        await serve(
            listen=settings.listen,
            registrations=before.registrations,
            authenticator=before.authenticator,
            inspect=before.inspect,
            around=before.around,
            tls=settings.server_tls,
            draining=draining,
            reflection=settings.reflection,
        )


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


async def _nodes(stack: AsyncExitStack, settings: GatewaySettings) -> Nodes:
    token = settings.home.cell_token()

    async def connected(address: str, service: ServiceDescriptor) -> grpc.aio.Channel:
        return await stack.enter_async_context(open_channel(address, token, services=[service]))

    return Nodes(
        await connected(settings.workspace_address, _WORKSPACE),
        await connected(settings.git_address, _GIT),
        await connected(settings.execution_address, _EXECUTION),
        Patience(away=settings.node_patience_seconds),
    )


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
        cell_id=_cell_id(directory),
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


def _cell_id(directory: Path) -> str:
    """Return this data directory's cell, the same for as long as the directory lives. Called under its lock."""
    file = directory / "cell-id"
    if not file.exists():
        temporary = directory / "cell-id.new"
        temporary.write_text(new_id("cell") + "\n")
        temporary.rename(file)
    return file.read_text().strip()


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
