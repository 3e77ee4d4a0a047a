"""What a job costs its database: transactions and statements are counted, as they are what its time goes with."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from bench.kit.nodes import NoOpAgents, idle_nodes
from services.lifecycle.life import run_job
from services.lifecycle.model.outcome import Outcome, RetentionPeriods
from services.lifecycle.model.states import JobState
from services.lifecycle.run import JobRun
from services.lifecycle.webhooks import Webhooks
from tests.kit.ledger import Books, claimed

TRANSACTIONS = 11
"""Admission, claim, what is recorded, the begin of each of seven stages, the end."""
STATEMENTS = 53


@contextmanager
def counted(book: Books) -> Iterator[Counter[str]]:
    """Count what is executed."""
    counts: Counter[str] = Counter()

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        counts["statements"] += not statement.startswith("BEGIN")

    def committed(_connection: Any) -> None:
        counts["transactions"] += 1

    engine = book.engine.sync_engine
    event.listen(engine, "before_cursor_execute", executed)
    event.listen(engine, "commit", committed)
    try:
        yield counts
    finally:
        event.remove(engine, "before_cursor_execute", executed)
        event.remove(engine, "commit", committed)


async def test_a_job_is_few_transactions_and_statements(book: Books) -> None:
    cell = await book.cell("cell")
    async with idle_nodes(NoOpAgents()) as nodes:  # type: ignore[abstract] # a job calls no more
        with counted(book) as counts:
            await book.admit("Do nothing.", labels={"team": "a"})
            job = JobRun(await claimed(cell), cell, nodes, Webhooks(), RetentionPeriods())
            outcome = await run_job(job)
    assert outcome == Outcome(JobState.SUCCEEDED)
    assert counts["transactions"] <= TRANSACTIONS
    assert counts["statements"] <= STATEMENTS
    assert len((await book.store.job(job.lease.job_id)).timeline) == 8


async def test_what_has_ended_is_recorded_before_anything_else_begins(book: Books) -> None:
    """As each stage begins, all before it are recorded as done: a driver that is lost then repeats that stage alone."""
    await book.admit("Do nothing.")
    cell = await book.cell("cell")
    lease, seen = await claimed(cell), []

    class Looking:
        def __getattr__(self, name: str) -> Any:
            return getattr(cell, name)

        async def begin_stage(self, *written: Any) -> None:
            await cell.begin_stage(*written)
            seen.append([(stage.name, str(stage.state)) for stage in (await book.store.job(lease.job_id)).timeline])

    async with idle_nodes(NoOpAgents()) as nodes:  # type: ignore[abstract] # a job calls no more
        await run_job(JobRun(lease, Looking(), nodes, Webhooks(), RetentionPeriods()))  # type: ignore[arg-type]
    names = ["hooks", "base", "workspace", "start", "agent", "take", "diff", "cleanup"]
    assert seen == [
        [*((name, "DONE") for name in names[:number]), (names[number], "RUNNING")] for number in range(1, len(names))
    ]
