"""Puts the coordinator together."""

import asyncio
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog

from services.common import program
from services.common.errors import PermissionDenied, ServiceError, StartError, Unauthenticated
from services.common.ids import persistent_id
from services.common.lock import single_instance
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from services.common.rpc.nodes import node_tls
from services.common.rpc.server import serve
from services.common.settings import load_settings
from services.coordinator.clients import LocalEvents, Upstream, UpstreamUnavailable
from services.coordinator.event_forwarding import EventForwarder
from services.coordinator.ledger import ClaimFilter, RemoteLedger
from services.coordinator.settings import CoordinatorSettings, comma_separated
from services.lifecycle.driver import Driver
from services.lifecycle.ledger import LedgerUnavailable
from services.lifecycle.nodes import NodeInventory, NodeWatch, connected
from services.lifecycle.orphans import OrphanReaper
from services.lifecycle.webhooks import Webhooks

_RETRY_SECONDS: Final = 1.0
_ORPHANS_SECONDS: Final = 5.0

log = structlog.get_logger()


def main() -> None:
    """Run the coordinator until it is told to stop."""
    program.run("coordinator", _main)


async def _main() -> None:
    settings = load_settings(CoordinatorSettings)
    directory = settings.home.directory("coordinator")
    async with AsyncExitStack() as stack:
        # Only one process may continue this machine's own jobs.
        stack.enter_context(single_instance(directory / "lock", f"is the coordinator of {directory}"))
        coordinator_id = settings.id or persistent_id(directory / "coordinator-id", "coordinator")
        upstream = await stack.enter_async_context(
            Upstream(comma_separated(settings.upstream), settings.shown_token(), settings.upstream_tls)
        )
        nodes = await stack.enter_async_context(connected(settings))
        forwarder = EventForwarder(partial(upstream.append, coordinator_id), LocalEvents(nodes.execution))
        stack.push_async_callback(forwarder.stop)
        claim_filter = ClaimFilter(
            settings.capacity,
            comma_separated(settings.projects),
            comma_separated(settings.kinds),
            comma_separated(settings.engines),
        )
        ledger = RemoteLedger(upstream, coordinator_id, claim_filter, forwarder)
        watch = NodeWatch(nodes, ledger.report)
        is_registered = await _try_to_register(ledger, watch)
        driver = Driver(
            ledger,
            nodes,
            capacity=settings.capacity,
            webhooks=Webhooks(settings.webhooks_allowed),
            retention_periods=settings.retention_periods,
            own_providers=settings.own_providers,
            providers_allowed=settings.providers_allowed,
            outage_pause_seconds=settings.model_pause_seconds,
        )
        orphans = OrphanReaper(
            NodeInventory(nodes), partial(upstream.job_statuses, coordinator_id), settings.retention_periods
        )

        async def drive() -> None:
            if not is_registered:
                await _keep_trying_to_register(ledger, watch)
            async with asyncio.TaskGroup() as group:
                group.create_task(driver.run(), name="driver")
                group.create_task(watch.run(), name="condition of the node")
                group.create_task(orphans.run(_ORPHANS_SECONDS), name="orphans")
                group.create_task(_watch(upstream, coordinator_id, driver), name="cancellations")

        await stack.enter_async_context(program.background_tasks({"driving": drive()}))
        listen = settings.listen or settings.home.socket("coordinator")
        await serve(
            listen=listen,
            tls=node_tls(settings.home, listen),
            registrations=[],  # its health is all that it serves
            authenticator=cell_authenticator(settings.home.cell_token()),
            draining=Draining(),
            reflection=settings.reflection,
        )


async def _try_to_register(ledger: RemoteLedger, watch: NodeWatch) -> bool:
    """Register at a gateway; return True when it and our node answered. Raises StartError when it refuses our token."""
    try:
        await _register(ledger, watch)
    except (LedgerUnavailable, ServiceError) as error:
        if isinstance(error, UpstreamUnavailable) and isinstance(error.error, Unauthenticated | PermissionDenied):
            raise StartError(f"the gateway refuses this coordinator: {error.error.message}") from error
        log.warning("waiting for a gateway, or our own node", error=str(error))
        return False
    return True


async def _keep_trying_to_register(ledger: RemoteLedger, watch: NodeWatch) -> None:
    """Register, and try again until a gateway and our node answer."""
    while True:
        await asyncio.sleep(_RETRY_SECONDS)
        try:
            return await _register(ledger, watch)
        except (LedgerUnavailable, ServiceError) as error:
            log.warning("waiting for a gateway, or our own node", error=str(error))


async def _register(ledger: RemoteLedger, watch: NodeWatch) -> None:
    """Register. Raises LedgerUnavailable, ServiceError when no gateway answers, or our node does not."""
    condition = await watch.condition()
    if condition.allowance is None:
        raise LedgerUnavailable("our own execution service does not say what it lets jobs choose")
    held = await ledger.register(socket.gethostname(), condition.allowance)
    await ledger.report(condition)
    log.info("registered", jobs_held=held)


async def _watch(upstream: Upstream, coordinator_id: str, driver: Driver) -> None:
    """Wake the driver when one of its jobs is cancelled."""
    while True:
        try:
            await upstream.watch(coordinator_id, driver.wake)
        except LedgerUnavailable as error:
            log.info("cannot watch for cancellations", error=str(error))
        await asyncio.sleep(_RETRY_SECONDS)
