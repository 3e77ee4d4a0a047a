"""Counters of jobs count what was committed, and gauges cover all cells, on each kind of database."""

from prometheus_client import CollectorRegistry

from services.common.db.commit_events import on_commit, publish_on_commit
from services.gateway.metrics.counters import JobCounters
from services.gateway.metrics.store import GaugeStore
from services.gateway.values.facts import JobEnded
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, claimed

FAILED = Outcome(JobState.FAILED, Failure("AGENT_FAILED", "it exited with 3"))


async def test_what_is_rolled_back_is_not_counted(book: Books) -> None:
    heard: list[object] = []
    on_commit(book.engine, heard.append)
    connection = await book.engine.connect()
    await connection.begin()
    publish_on_commit(connection, "never")
    await connection.rollback()
    await connection.close()
    async with book.engine.begin() as connection:
        publish_on_commit(connection, "once")
        assert heard == []
    assert heard == ["once"]
    async with book.engine.begin():
        pass
    assert heard == ["once"]


async def test_a_job_is_counted_where_it_ends_and_once(book: Books) -> None:
    heard: list[object] = []
    on_commit(book.engine, heard.append)
    cell = await book.cell("one")
    await book.admit()
    lease = await claimed(cell)
    await cell.finish(lease, FAILED)
    await cell.finish(lease, FAILED)  # again, as if the first answer had been lost
    (ended,) = [fact for fact in heard if isinstance(fact, JobEnded)]
    assert (ended.state, ended.reason) == (JobState.FAILED, "AGENT_FAILED")

    registry = CollectorRegistry()
    counted = JobCounters(registry)
    for fact in heard:
        counted.count(fact)
    labels = {"kind": "task", "state": "FAILED", "reason": "AGENT_FAILED"}
    assert registry.get_sample_value("boatyard_jobs_ended_total", labels) == 1
    assert registry.get_sample_value("boatyard_job_attempts_total") == 1
    assert registry.get_sample_value("boatyard_job_takeovers_total") == 0


async def test_every_cell_tells_the_same_of_all_jobs_and_its_own_of_what_it_carries(book: Books) -> None:
    cell = await book.cell("one")
    await book.cell("two")
    for _ in range(3):
        await book.admit()
    await cell.finish(await claimed(cell), FAILED)
    await claimed(cell)
    one, two = [await GaugeStore(book.engine, cell_id).read() for cell_id in ("one", "two")]
    assert one.jobs == two.jobs
    assert sorted((state, count) for (_, state), count in one.jobs.items()) == [("PENDING", 1), ("RUNNING", 1)]
    assert (one.running_here, two.running_here) == (1, 0)
    assert one.waiting == two.waiting == 1
    assert one.longest_wait_seconds > 0
    assert one.open_questions == 0
