"""The job queue, against a bare table with SKIP LOCKED and against Procrastinate; and with many finished jobs.

Everything is measured in one run, on SQLite and on PostgreSQL, in alternating rounds, so that the machine's other work
affects all. What is measured is the queue: the real ledger and the real driver run jobs without a repository to their
end, 20 at once in one process, as for the others, and the node services are tiny gRPC servers in that process, which
answer at once and do nothing. Ours records every step of a job before the next begins (a dozen transactions per job,
and four RPCs); the others take a job in one transaction and mark it as done in another, with nothing in between.

Latency is from submitting one job to an idle queue until its work begins: for ours when StartExecution arrives, after
claim, hooks and workspace have been recorded. Rates are jobs per second, times are milliseconds; there is no goal for
either, because the others do less.

With finished jobs in the database, each with its execution, stages and label, a page of the newest 50 jobs is listed,
of all jobs and of live ones, a job is submitted, and one is claimed. In all cases the same 60 jobs are waiting. Wanted:
at most twice the time that it takes without finished jobs.

    python -m bench.queues SQLite --rounds 1 --history 1000
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    String,
    cast,
    func,
    insert,
    literal,
    select,
    text,
    true,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.kit.figures import at_most
from bench.kit.options import add_parts, options
from bench.kit.postgres import new_database, postgres
from bench.kit.queues import Ours, Queue, bare_postgres, bare_sqlite, ours, procrastinate_queue
from services.common import logs
from services.common.db.paging import Page
from services.gateway.schema.jobs import LIVE, executions, job_labels, jobs, stages
from services.gateway.values.jobs import JobFilter

PINGS, WAITING, SAMPLES = 15, 60, 40
AIM = 2.0

Openers = Mapping[str, AbstractAsyncContextManager[Queue]]
NewUrl = Callable[[str], str]


async def throughput(queue: Queue, count: int) -> float:
    """Return jobs per second, with `count` jobs waiting when the workers begin."""
    for _ in range(count):
        await queue.submit()
    began = time.perf_counter()
    async with queue.working():
        await queue.until_done()
        return count / (time.perf_counter() - began)


async def latencies(queue: Queue) -> list[float]:
    """Return milliseconds from submitting a job to an idle queue until it begins."""
    found = []
    async with queue.working():
        await asyncio.sleep(0.5)
        for _ in range(PINGS):
            submitted = time.perf_counter()
            expected = queue.count + 1
            await queue.submit()
            found.append(1000 * (await queue.until_started(expected) - submitted))
            await queue.until_done()
    return found


async def compare(database: str, openers: Openers, rounds: int, count: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in openers}
    waits: dict[str, list[float]] = {name: [] for name in openers}
    async with AsyncExitStack() as stack:
        queues = {name: await stack.enter_async_context(opener) for name, opener in openers.items()}
        for _ in range(rounds):
            for name, queue in queues.items():
                rates[name].append(await throughput(queue, count))
                waits[name] += await latencies(queue)
    mine = statistics.median(rates["ours"])
    for name in openers:
        rate, (p50, p95) = statistics.median(rates[name]), percentiles(waits[name])
        share = "" if name == "ours" else f", ours / this {mine / rate:.2f}"
        print(f"{database}: {name}: {rate:.0f} jobs/s{share}; submit to start p50 {p50:.1f} ms, p95 {p95:.1f} ms")


def percentiles(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=20)
    return cuts[9], cuts[18]


async def with_history(database: str, urls: Mapping[int, str]) -> None:
    async with AsyncExitStack() as stack:
        books = {count: await stack.enter_async_context(ours(url)) for count, url in urls.items()}
        for count, queue in books.items():
            await fill(queue, count)
        took: dict[str, dict[int, list[float]]] = {}
        for number in range(SAMPLES + 3):
            for count, queue in books.items():
                for name, do in operations(queue).items():
                    began = time.perf_counter()
                    await do()
                    if number >= 3:  # the first ones warm up
                        took.setdefault(name, {}).setdefault(count, []).append(time.perf_counter() - began)
    for name, by_count in took.items():
        medians = {count: 1000 * statistics.median(values) for count, values in by_count.items()}
        without = medians.pop(0)
        for count, took_with in medians.items():
            ratio = took_with / without
            print(
                f"{database}: {name} with {count} finished jobs: {took_with:.2f} ms, without {without:.2f} ms,"
                f" ratio {ratio:.2f} {at_most(ratio, AIM)}"
            )


def operations(queue: Ours) -> Mapping[str, Callable[[], Awaitable[object]]]:
    return {
        "list": lambda: queue.store.jobs(JobFilter(), Page()),
        "list of those that live": lambda: queue.store.jobs(JobFilter(states=frozenset(LIVE)), Page()),
        "submit": queue.submit,
        "claim": queue.ledger.claim,
    }


async def fill(queue: Ours, count: int) -> None:
    """Run one job, copy it `count` times into the past, and leave WAITING others in the queue."""
    await queue.submit()
    async with queue.working():
        await queue.until_done()
    if count:
        await copy(queue.engine, count)
    for _ in range(WAITING):
        await queue.submit()


async def copy(engine: AsyncEngine, count: int) -> None:
    numbers = select(literal(1, BigInteger).label("i")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.i + 1).where(numbers.c.i < count))
    number = cast(numbers.c.i, String(20))
    async with engine.begin() as connection:
        job_id = (await connection.execute(select(jobs.c.job_id))).scalar_one()
        for table in (jobs, executions, stages, job_labels):
            columns = [_copied(column, number, numbers.c.i, job_id) for column in table.c]
            rows = select(*columns).select_from(table.join(numbers, true())).where(table.c.job_id == job_id)
            await connection.execute(insert(table).from_select([column.name for column in table.c], rows))
    if engine.dialect.name == "postgresql":  # as autovacuum does sooner or later
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM ANALYZE"))


def _copied(
    column: Column[Any], number: ColumnElement[str], index: ColumnElement[int], job_id: str
) -> ColumnElement[Any]:
    match column.name:
        case "job_id":
            return literal("old-").concat(number)
        case "execution_id":
            return literal("run-").concat(number)
        case "definition":
            return func.replace(column, job_id, literal("old-").concat(number))
        case "create_time" | "start_time" | "end_time":
            return type_coerce(column, BigInteger) - index * 1_000_000
        case _:
            return column


@contextmanager
def files() -> Iterator[NewUrl]:
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as directory:
        yield lambda name: f"sqlite:///{directory}/{name}.db"


@contextmanager
def databases() -> Iterator[NewUrl]:
    with postgres() as server:
        yield partial(new_database, server)


NEW_URLS = {"SQLite": files, "PostgreSQL": databases}


def openers(database: str, new: NewUrl) -> Openers:
    if database == "SQLite":
        return {"ours": ours(new("ours")), "a bare table": bare_sqlite(new("bare"))}
    return {
        "ours": ours(new("ours")),
        "a bare table with SKIP LOCKED": bare_postgres(new("bare")),
        "Procrastinate": procrastinate_queue(new("procrastinate")),
    }


def measure(database: str, new: NewUrl, wanted: argparse.Namespace) -> None:
    asyncio.run(compare(database, openers(database, new), wanted.rounds, wanted.jobs))
    asyncio.run(with_history(database, {count: new(f"history_{count}") for count in (0, *wanted.history)}))


def main() -> None:
    parser = options(__doc__)
    add_parts(parser, NEW_URLS)
    parser.add_argument("--rounds", type=int, default=3, help=f"of each queue, with {PINGS} jobs alone")
    parser.add_argument("--jobs", type=int, default=100, help="that wait at once, in each round")
    parser.add_argument("--history", type=int, nargs="+", default=[10_000, 100_000], help="of finished jobs")
    wanted = parser.parse_args()
    logs.configure("bench", "WARNING")
    for database in wanted.parts:
        with NEW_URLS[database]() as new:
            measure(database, new, wanted)


if __name__ == "__main__":
    main()
