"""On PostgreSQL a gateway hears at once of what another one changes, also after their connection was lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from services.gateway.ledger.broadcast import ChangeBroadcast
from services.gateway.ledger.notifier import ALL, WORK, JobNotifier
from tests.kit.ledger import Books, books

LONG = 60.0


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[tuple[Books, asyncio.Event]]:
    """Yield a gateway's ledger database, and an event that is set when the gateway may have missed something."""
    async with books(url) as book:
        connected = asyncio.Event()
        book.notifier.call_on_work(lambda _: connected.set())
        running = asyncio.create_task(ChangeBroadcast(book.engine, book.notifier).run())
        try:
            async with asyncio.timeout(20):
                await connected.wait()
            connected.clear()
            yield book, connected
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def woken(notifier: JobNotifier, what: str, act) -> None:  # type: ignore[no-untyped-def]
    """Do something on another gateway, and check that it wakes a waiter on this one."""
    with notifier.subscribe(what) as subscription:
        await act
        async with asyncio.timeout(LONG):
            await subscription.wait(LONG * 2)


async def test_waiters_and_drivers_of_another_gateway_are_woken(postgres_url: str) -> None:
    async with gateway(postgres_url) as (one, _), gateway(postgres_url) as (other, woken_up):
        await woken(other.notifier, WORK, one.admit())
        async with asyncio.timeout(LONG):
            await woken_up.wait()
        woken_up.clear()
        job_id = (await one.admit()).spec.job_id
        await woken(other.notifier, job_id, one.store.cancel_job(job_id))
        await woken(other.notifier, ALL, one.admit())


async def test_a_lost_connection_is_made_anew_and_what_was_missed_is_looked_for(postgres_url: str) -> None:
    async with gateway(postgres_url) as (one, _), gateway(postgres_url) as (other, woken_up):
        with other.notifier.subscribe("job-any") as subscription:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
            async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
                assert (await admin.execute(cut)).rowcount == 2
            async with asyncio.timeout(LONG):
                await woken_up.wait()
                await subscription.wait(LONG * 2)
        await woken(other.notifier, WORK, one.admit())
