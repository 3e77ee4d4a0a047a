"""Assembles the gateway from its packages, and runs it."""

import resource
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final, TypeAlias

from boatyard.gateway.v1 import admin_pb2, catalog_pb2, checkpoint_pb2, job_pb2
from boatyard.gateway.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from boatyard.gateway.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from boatyard.gateway.v1.checkpoint_pb2_grpc import add_CheckpointServiceServicer_to_server
from boatyard.gateway.v1.job_pb2_grpc import add_JobServiceServicer_to_server
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common import program
from services.common.db.engine import sqlite_url
from services.common.db.room import keep_room
from services.common.errors import StartError
from services.common.home import token_from
from services.common.lock import single_instance
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, serve
from services.common.settings import load_settings
from services.common.supervision import Supervisor
from services.gateway.budgets import app as budgets
from services.gateway.budgets.store import OWNERS as BUDGET_OWNERS
from services.gateway.catalog import update_wire
from services.gateway.catalog.servicer import CatalogServicer
from services.gateway.catalog.store import OWNERS as CATALOG_OWNERS
from services.gateway.catalog.store import CatalogStore
from services.gateway.cells.identity import this_cell
from services.gateway.cells.own import OwnCell
from services.gateway.cells.servicer import AdminServicer
from services.gateway.cells.state import StateStore
from services.gateway.cells.store import CellStore
from services.gateway.checkpoints.servicer import CheckpointServicer
from services.gateway.checkpoints.store import OWNERS as CHECKPOINT_OWNERS
from services.gateway.checkpoints.store import CheckpointStore
from services.gateway.coordinators import app as coordinators
from services.gateway.cost import app as cost
from services.gateway.cost.store import CostStore
from services.gateway.door.app import door
from services.gateway.hooks import app as hooks
from services.gateway.hooks.calls import CallStore
from services.gateway.hooks.store import OWNERS as HOOK_OWNERS
from services.gateway.http.app import PAGES, http_app
from services.gateway.http.clients import node_metrics
from services.gateway.http.server import http_server
from services.gateway.jobs import retention, submission_wire
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.kinds import load_kinds
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.servicer import IsGone, JobServicer
from services.gateway.jobs.store import OWNERS as JOB_OWNERS
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.wire import job_document
from services.gateway.jobs.work_items import WorkItemJobs
from services.gateway.keys.file import KeyFile
from services.gateway.keys.keeper import keep_keys
from services.gateway.keys.store import KeyStore, unlock
from services.gateway.ledger.broadcast import ChangeBroadcast
from services.gateway.ledger.events import EventStore
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.sql_ledger import RESERVE_WAIT_SECONDS, SqlLedger
from services.gateway.ledger.statuses import JobStatuses
from services.gateway.metrics.app import gateway_meters
from services.gateway.routing.forwarding import PeerToken
from services.gateway.runtime.app import runtime_registration
from services.gateway.schema import idempotency
from services.gateway.schema.database import opened_database
from services.gateway.settings import GatewaySettings
from services.gateway.values.cells import Cell
from services.gateway.wire.policy import CHECKS
from services.gateway.wire.requests import page_checks
from services.lifecycle.driver import Driver
from services.lifecycle.model.condition import STARTING, Condition
from services.lifecycle.model.floor import Floor
from services.lifecycle.nodes import NodeInventory, Nodes, NodeWatch, connected
from services.lifecycle.orphans import OrphanReaper
from services.lifecycle.webhooks import Webhooks

BackgroundTask: TypeAlias = Coroutine[Any, Any, None]

OWNERS: Final = {**CATALOG_OWNERS, **BUDGET_OWNERS, **HOOK_OWNERS, **CHECKPOINT_OWNERS, **JOB_OWNERS}
"""Who owns the things that requests can name, as the packages that have the things declare it."""


def main() -> None:
    """Run the gateway until it is told to stop."""
    program.run("gateway", _main)


async def _main() -> None:
    supervisor = Supervisor()
    settings = load_settings(GatewaySettings)
    _allow_open_files()
    directory = settings.home.directory("gateway")
    async with AsyncExitStack() as stack:
        # Only the process that holds this lock may take back the cell's own leases.
        stack.enter_context(single_instance(directory / "lock", f"is the gateway of {directory}"))
        cell = this_cell(directory, settings)
        url = _given(settings.database_url) or sqlite_url(directory / "gateway.db")
        listen_url = _given(settings.database_listen_url)
        engine = await stack.enter_async_context(opened_database(url, cell.cell_id, listen_url))
        key_file = KeyFile(settings.home.keys_file)
        ring = await unlock(engine, key_file, _given_keys(settings))
        keys = KeyStore(engine, ring, key_file, settings.lease_seconds)
        nodes = await stack.enter_async_context(connected(settings))
        notifier, draining = JobNotifier(), Draining()
        cells = CellStore(engine, settings.lease_seconds)
        await cells.register(cell, Condition(None, (STARTING,)))
        own = OwnCell(engine, cells, cell, nodes)
        meters = await stack.enter_async_context(gateway_meters(engine, cells, cell).watching())
        ledger = await _ledger(engine, cell, notifier, settings)
        store, events = JobStore(engine, notifier), EventStore(engine)
        tasks = {
            "keys": keep_keys(keys, cell.cell_id),
            "room of the database": keep_room(engine),
            "notices": ChangeBroadcast(engine, notifier).run(),
            "condition of the node": NodeWatch(nodes, own.record).run(),
            **_driver_tasks(ledger, nodes, notifier, JobStatuses(engine, cell.cell_id), settings),
            **_retention_tasks(engine, cell, cells, settings),
        }
        await stack.enter_async_context(program.background_tasks(tasks))
        admission = _admission(engine, notifier, settings, own)
        runtime, is_gone = await stack.enter_async_context(
            runtime_registration(
                engine,
                cell.cell_id,
                nodes,
                cells=cells,
                jobs=store,
                admission=admission,
                notifier=notifier,
                draining=draining,
                tls=settings.client_tls,
                administration=_administration(engine, cell, cells, keys, supervisor),
            )
        )

        async def document_of(job_id: str) -> bytes:
            return job_document(await store.job(job_id))

        entrance = door(
            engine,
            [
                *_registrations(
                    engine,
                    store,
                    notifier,
                    admission,
                    draining=draining,
                    settings=settings,
                    is_gone=is_gone,
                ),
                *runtime,
                budgets.registration(engine),
                cost.registration(CostStore(engine)),
                hooks.registration(engine, document_of, nodes, settings.webhooks_allowed),
                *coordinators.registrations(
                    engine,
                    cells=cells,
                    jobs=store,
                    events=events,
                    takes_over=ledger.takes_over,
                    notifier=notifier,
                    draining=draining,
                    lease_seconds=settings.lease_seconds,
                    ageing_seconds=settings.ageing_seconds,
                ),
            ],
            owners=OWNERS,
            cell_id=cell.cell_id,
            admin_token=_admin_token(settings),
            keep_records=timedelta(days=settings.audit_days),
            others=[PeerToken(cell.peer_token)],
            other_paths={**PAGES, **coordinators.EARLIER_PATHS},
        )
        await stack.enter_async_context(program.background_tasks({"records of calls": entrance.run()}))
        pages = http_app(meters, node_metrics(nodes), entrance.authenticator, draining)
        await stack.enter_async_context(http_server(pages, settings.http_listen, settings.server_tls))
        await serve(
            listen=settings.listen,
            socket=settings.home.socket("gateway"),
            registrations=entrance.registrations,
            authenticator=entrance.authenticator,
            inspect=entrance.inspect,
            screen=entrance.screen,
            around=[*entrance.around, meters.around],
            tls=settings.server_tls,
            waits_for_port=True,
            draining=draining,
            reflection=settings.reflection,
        )


def _allow_open_files() -> None:
    """Allow as many open files as may be: outsiders open connections, and the gateway starts no other program."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _ledger(engine: AsyncEngine, cell: Cell, notifier: JobNotifier, settings: GatewaySettings) -> SqlLedger:
    """Open the ledger, and take back the leases that this cell held before it was restarted."""
    ledger = SqlLedger(
        engine,
        cell.cell_id,
        notifier,
        job_document,
        lease_seconds=settings.lease_seconds,
        ageing_seconds=settings.ageing_seconds,
        reserve_wait_seconds=RESERVE_WAIT_SECONDS,
    )
    await ledger.take_over_own(cell.host)
    ledger.wait_for_others()
    return ledger


def _driver_tasks(
    ledger: SqlLedger, nodes: Nodes, notifier: JobNotifier, statuses: JobStatuses, settings: GatewaySettings
) -> dict[str, BackgroundTask]:
    """Return the loops that run jobs, and that end on this machine what other cells have taken over."""
    webhooks = Webhooks(settings.webhooks_allowed)
    driver = Driver(
        ledger,
        nodes,
        capacity=settings.max_jobs,
        webhooks=webhooks,
        retention_periods=settings.retention_periods,
        own_providers=settings.own_providers,
        providers_allowed=settings.providers_allowed,
        outage_pause_seconds=settings.model_pause_seconds,
    )
    notifier.call_on_work(driver.wake)
    reaper = OrphanReaper(NodeInventory(nodes), statuses.of, settings.retention_periods)
    return {"driver": driver.run(), "orphans": reaper.run(settings.lease_seconds)}


def _retention_tasks(
    engine: AsyncEngine, cell: Cell, cells: CellStore, settings: GatewaySettings
) -> dict[str, BackgroundTask]:
    """Return the loops that remove what is old."""
    return {
        "request ids": idempotency.run_retention(engine),
        "jobs that ended long ago": retention.run_retention(engine, settings.keep_jobs_days),
        "cells that are gone": cells.run_retention(cell, settings.forget_cell_days * 86400),
        "calls of hooks": CallStore(engine).run_retention(),
        "usage of models": CostStore(engine).run_retention(settings.keep_usage_days),
    }


def _admission(engine: AsyncEngine, notifier: JobNotifier, settings: GatewaySettings, own: OwnCell) -> Admission:
    return Admission(
        engine,
        notifier,
        settings.agent_command,
        settings.agent_model,
        load_kinds(settings.kinds_file),
        tries=Floor(max_attempts=settings.max_attempts, max_extra_rounds=settings.max_extra_rounds),
        ageing_seconds=settings.ageing_seconds,
        own_providers=settings.own_providers,
        own_cell=own,
    )


def _registrations(
    engine: AsyncEngine,
    store: JobStore,
    notifier: JobNotifier,
    admission: Admission,
    *,
    draining: Draining,
    settings: GatewaySettings,
    is_gone: IsGone,
) -> list[Registration]:
    return [
        Registration(
            catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
            add_CatalogServiceServicer_to_server,
            CatalogServicer(
                CatalogStore(engine),
                WorkItemJobs(engine, admission).start,
                settings.providers_allowed,
                settings.own_providers,
            ),
            {**update_wire.CHECKS, **CHECKS},
        ),
        Registration(
            checkpoint_pb2.DESCRIPTOR.services_by_name["CheckpointService"].full_name,
            add_CheckpointServiceServicer_to_server,
            CheckpointServicer(CheckpointStore(engine, notifier), notifier, draining),
            page_checks(checkpoint_pb2.DESCRIPTOR.services_by_name["CheckpointService"]),
        ),
        Registration(
            job_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
            add_JobServiceServicer_to_server,
            JobServicer(admission, store, Retries(engine, notifier), notifier, draining=draining, is_gone=is_gone),
            {
                **CHECKS,
                **submission_wire.checks(admission.kinds),
                **page_checks(job_pb2.DESCRIPTOR.services_by_name["JobService"]),
            },
        ),
    ]


def _administration(
    engine: AsyncEngine, cell: Cell, cells: CellStore, keys: KeyStore, supervisor: Supervisor
) -> Registration:
    service = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
    servicer = AdminServicer(cell, cells, StateStore(engine), keys, supervisor)
    return Registration(service.full_name, add_AdminServiceServicer_to_server, servicer, page_checks(service))


def _given_keys(settings: GatewaySettings) -> Sequence[bytes]:
    if settings.keys_file is None:
        return ()
    keys = KeyFile(settings.keys_file, closed_to=0o007).read()  # a mounted secret may be its group's
    if not keys:
        raise StartError(f"BOATYARD_GATEWAY_KEYS_FILE: {settings.keys_file} does not exist, or has no key")
    return keys


def _given(setting: SecretStr | None) -> str:
    return setting.get_secret_value() if setting else ""


def _admin_token(settings: GatewaySettings) -> str:
    return token_from(_given(settings.token), "BOATYARD_TOKEN") or settings.home.admin_token()
