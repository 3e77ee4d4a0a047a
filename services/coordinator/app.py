"""Puts the coordinator together."""

import asyncio
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog

from services.common import program
from services.common.errors import PermissionDenied, StartError, Unauthenticated
from services.common.ids import persistent_id
from services.common.lock import single_instance
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from services.common.rpc.server import serve
from services.common.settings import load_settings
from services.coordinator.clients import LocalEvents, NotReached, Upstream
from services.coordinator.ledger import RemoteLedger, Wishes
from services.coordinator.settings import CoordinatorSettings, listed
from services.coordinator.shipping import Shipping
from services.lifecycle.driver import Driver
from services.lifecycle.ledger import LedgerUnavailable
from services.lifecycle.nodes import NodeInventory, connected
from services.lifecycle.orphans import OrphanReaper
from services.lifecycle.webhooks import Webhooks

_RETRY_SECONDS: Final = 1.0
_STRAYS_SECONDS: Final = 5.0

log = structlog.get_logger()


def main() -> None:
    """Run the coordinator until it is told to stop."""
    program.run("coordinator", _main)


async def _main() -> None:
    settings = load_settings(CoordinatorSettings)
    directory = settings.home.directory("coordinator")
    async with AsyncExitStack() as stack:
        # The one process that may take this machine's own jobs back.
        stack.enter_context(single_instance(directory / "lock", f"is the coordinator of {directory}"))
        coordinator_id = persistent_id(directory / "coordinator-id", "coordinator")
        upstream = await stack.enter_async_context(
            Upstream(listed(settings.upstream), settings.shown_token(), settings.upstream_tls)
        )
        nodes = await stack.enter_async_context(connected(settings))
        shipping = Shipping(partial(upstream.append, coordinator_id), LocalEvents(nodes.execution))
        stack.push_async_callback(shipping.stop)
        wishes = Wishes(settings.capacity, listed(settings.projects), listed(settings.kinds), listed(settings.engines))
        ledger = RemoteLedger(upstream, coordinator_id, wishes, shipping)
        is_known = await _first_word(ledger)
        driver = Driver(
            ledger,
            nodes,
            capacity=settings.capacity,
            webhooks=Webhooks(settings.webhooks_allowed),
            keeping=settings.keeping,
        )
        strays = OrphanReaper(NodeInventory(nodes), partial(upstream.standings, coordinator_id), settings.keeping)

        async def carry() -> None:
            if not is_known:
                await _registered(ledger)
            async with asyncio.TaskGroup() as group:
                group.create_task(driver.run(), name="driver")
                group.create_task(strays.keep_ended(_STRAYS_SECONDS), name="strays")
                group.create_task(_listen(upstream, coordinator_id, driver), name="wishes")

        await stack.enter_async_context(program.background_tasks({"carrying": carry()}))
        await serve(
            listen=settings.listen,
            registrations=[],
            authenticator=cell_authenticator(settings.home.cell_token()),
            draining=Draining(),
            reflection=settings.reflection,
        )


async def _first_word(ledger: RemoteLedger) -> bool:
    """Say that we are here; whether a gateway has heard it. Raises StartError when it does not let us in."""
    try:
        held = await ledger.register(socket.gethostname())
    except LedgerUnavailable as error:
        if isinstance(error, NotReached) and isinstance(error.error, Unauthenticated | PermissionDenied):
            raise StartError(f"the gateway does not let this coordinator in: {error.error.message}") from error
        log.warning("waiting for a gateway", error=str(error))
        return False
    log.info("registered", jobs_held=held)
    return True


async def _registered(ledger: RemoteLedger) -> None:
    """Say that we are here, until a gateway has heard it."""
    while True:
        await asyncio.sleep(_RETRY_SECONDS)
        try:
            held = await ledger.register(socket.gethostname())
        except LedgerUnavailable as error:
            log.warning("waiting for a gateway", error=str(error))
        else:
            log.info("registered", jobs_held=held)
            return


async def _listen(upstream: Upstream, coordinator_id: str, driver: Driver) -> None:
    """Have the driver look at once when one of its jobs is to end."""
    while True:
        try:
            await upstream.watch(coordinator_id, driver.poke)
        except LedgerUnavailable as error:
            log.info("not told at once what is to end", error=str(error))
        await asyncio.sleep(_RETRY_SECONDS)
