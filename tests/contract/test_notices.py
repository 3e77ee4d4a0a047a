"""What one gateway changes another one hears of at once, on PostgreSQL; also after their connection was lost."""

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
    """One gateway's books; the event is set when it hears that it may have missed something."""
    async with books(url) as book:
        connected = asyncio.Event()
        book.notifier.call_on_work(connected.set)
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
    """Do something elsewhere, and be woken by it."""
    with notifier.subscribe(what) as subscription:
        await act
        async with asyncio.timeout(LONG):
            await subscription.wait(LONG * 2)


async def test_waiters_and_drivers_of_another_gateway_are_woken(postgres_url: str) -> None:
    async with gateway(postgres_url) as (here, _), gateway(postgres_url) as (there, poked):
        await woken(there.notifier, WORK, here.admit())
        async with asyncio.timeout(LONG):
            await poked.wait()
        poked.clear()
        job_id = (await here.admit()).spec.job_id
        await woken(there.notifier, job_id, here.store.cancel_job(job_id))
        await woken(there.notifier, ALL, here.admit())


async def test_a_lost_connection_is_made_anew_and_what_was_missed_is_looked_for(postgres_url: str) -> None:
    async with gateway(postgres_url) as (here, _), gateway(postgres_url) as (there, poked):
        with there.notifier.subscribe("job-any") as subscription:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
            async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
                assert (await admin.execute(cut)).rowcount == 2
            async with asyncio.timeout(LONG):
                await poked.wait()
                await subscription.wait(LONG * 2)
        await woken(there.notifier, WORK, here.admit())
