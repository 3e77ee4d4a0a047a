"""Finding jobs on every kind of database: by filters, page by page, and as they change."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from services.common.db.paging import Page
from services.gateway.jobs.shared_reads import SharedReads
from services.gateway.jobs.store import JobStore, job_key
from services.gateway.jobs.watching import JobUpdate, watch_jobs
from services.gateway.schema.jobs import executions, job_files, jobs, stages
from services.gateway.values.jobs import JobFilter, JobSummary, JobView, LabelSelector
from services.lifecycle.model.job_context import FileContent
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, claimed, clear

LABELS = ({}, {"env": "prod"}, {"env": "prod", "team": "a b"}, {"env": "test"}, {"team": ""})
KINDS = ("task", "data-processing")
STATES = (JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED, JobState.CANCELLED)


async def remove(book: Books, job_id: str) -> None:
    async with book.engine.begin() as connection:
        for table in (stages, executions, jobs):
            await connection.execute(delete(table).where(table.c.job_id == job_id))


async def reach(book: Books, view: JobView, state: JobState) -> None:
    """Bring a job to a state; it must be claimed before all others that are PENDING."""
    if state is JobState.CANCELLED:
        await book.store.cancel_job(view.spec.job_id)
    elif state is not JobState.PENDING:
        # A cell of its own for each job, because a cell that restarts gets its own jobs back.
        cell = await book.cell(f"of-{view.spec.job_id}")
        lease = await claimed(cell)
        assert lease.job_id == view.spec.job_id
        if state is JobState.SUCCEEDED:
            await cell.finish(lease, Outcome(JobState.SUCCEEDED))


async def listed(book: Books, job_filter: JobFilter, size: int = 3) -> list[str]:
    job_ids, token = [], ""
    while True:
        views, page = await book.store.jobs(job_filter, Page.parse(size, token))
        views, token = page.cut(views, job_key)
        job_ids += [view.spec.job_id for view in views]
        if not token:
            return job_ids


SELECTORS = st.builds(
    LabelSelector,
    key=st.sampled_from(["env", "team", "none"]),
    values=st.sampled_from([(), ("prod",), ("prod", "test"), ("a b",), ("",)]),
    lacks=st.booleans(),
)
FILTERS = st.fixed_dictionaries(
    {
        "project_id": st.sampled_from(["", "default", "other"]),
        "states": st.frozensets(st.sampled_from(STATES), max_size=2),
        "kinds": st.frozensets(st.sampled_from(KINDS), max_size=1),
        "labels": st.lists(SELECTORS, max_size=2).map(tuple),
        "visible": st.sampled_from([None, frozenset(), frozenset({"default"})]),
    }
)


def matches(job_filter: JobFilter, state: JobState, kind: str, labels: dict[str, str]) -> bool:
    """True when a job of the default project passes a filter, as the contract defines it."""

    def selected(by: LabelSelector) -> bool:
        return (by.key in labels and (not by.values or labels[by.key] in by.values)) != by.lacks

    return (
        job_filter.project_id in {"", "default"}
        and (job_filter.visible is None or "default" in job_filter.visible)
        and (not job_filter.states or state in job_filter.states)
        and (not job_filter.kinds or kind in job_filter.kinds)
        and all(map(selected, job_filter.labels))
    )


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    job_facts=st.lists(
        st.tuples(st.sampled_from(STATES), st.sampled_from(KINDS), st.sampled_from(LABELS)), min_size=1, max_size=6
    ),
    filters=st.lists(FILTERS, min_size=1, max_size=6),
)
async def test_a_filter_means_the_jobs_that_it_says(
    opened: Books, job_facts: list[tuple[JobState, str, dict[str, str]]], filters: list[dict[str, object]]
) -> None:
    await clear(opened)
    made = []
    for state, kind, labels in job_facts:
        view = await opened.admit(kind=kind, labels=labels, priority=0 if state is JobState.PENDING else 1)
        await reach(opened, view, state)
        made.append((view, (state, kind, labels)))
    for fields in filters:
        job_filter = JobFilter(**fields)  # type: ignore[arg-type]
        expected = [view.spec.job_id for view, facts in reversed(made) if matches(job_filter, *facts)]
        assert await listed(opened, job_filter) == expected
    middle = made[len(made) // 2][0].create_time
    newer = [view.spec.job_id for view, _ in reversed(made) if view.create_time >= middle]
    assert await listed(opened, JobFilter(created_after_time=middle)) == newer
    older = [view.spec.job_id for view, _ in reversed(made) if view.create_time < middle]
    assert await listed(opened, JobFilter(created_before_time=middle)) == older


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(1, 3),
    count=st.integers(1, 7),
    events=st.lists(st.tuples(st.sampled_from(["new", "remove", "cancel"]), st.integers(0, 6)), max_size=6),
    live=st.booleans(),
)
async def test_pages_stay_right_while_jobs_come_and_go(
    opened: Books, size: int, count: int, events: list[tuple[str, int]], live: bool
) -> None:
    """What matches from the first page to the last is listed exactly once, in order, whatever happens in between."""
    await clear(opened)
    job_filter = JobFilter(states=frozenset({JobState.PENDING}) if live else frozenset())
    stays = [(await opened.admit()).spec.job_id for _ in range(count)]
    keys, token = [], ""
    while True:
        views, page = await opened.store.jobs(job_filter, Page.parse(size, token))
        views, token = page.cut(views, job_key)
        keys += [job_key(view) for view in views]
        if not token:
            break
        if events:
            what, number = events.pop()
            victim = stays[number % len(stays)] if stays else ""
            if what == "new":
                await opened.admit()
            elif victim:
                await (remove(opened, victim) if what == "remove" else opened.store.cancel_job(victim))
                stays.remove(victim)
    assert keys == sorted(set(keys), reverse=True)
    assert set(stays) <= {job_id for _, job_id in keys}


class Watcher:
    """Watches jobs in a task of its own, like the stream of a client."""

    def __init__(self, book: Books, position: int = 0, *, reads: SharedReads | None = None, **fields: object) -> None:
        self.updates: list[JobUpdate] = []
        self._reads = reads or SharedReads(book.store)
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._watch(book, JobFilter(**fields), position))  # type: ignore[arg-type]

    async def _watch(self, book: Books, job_filter: JobFilter, position: int) -> None:
        async with aclosing(watch_jobs(self._reads, book.notifier, job_filter, position)) as updates:
            async for update in updates:
                async with self._changed:
                    self.updates.append(update)
                    self._changed.notify_all()

    async def until_shown(self, job_id: str, state: JobState) -> JobView:
        """Wait until an update has shown a job in a state; return the job."""

        def last() -> JobView | None:
            views = [update.view for update in self.updates if update.view and update.view.spec.job_id == job_id]
            return views[-1] if views and views[-1].state is state else None

        async with self._changed, asyncio.timeout(30):
            await self._changed.wait_for(last)
        view = last()
        assert view
        return view

    async def caught_up(self) -> int:
        """Wait until all existing jobs have been shown; return the position."""
        async with self._changed, asyncio.timeout(30):
            await self._changed.wait_for(lambda: any(update.view is None for update in self.updates))
        return self.updates[-1].position

    @property
    def jobs(self) -> list[str]:
        return [update.view.spec.job_id for update in self.updates if update.view]

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_who_watches_is_told_what_there_is_and_what_becomes_of_it(book: Books) -> None:
    ended = await book.admit(labels={"mine": ""})
    await book.store.cancel_job(ended.spec.job_id)
    pending = await book.admit(labels={"mine": ""})
    await book.admit(labels={"other": ""})
    watcher = Watcher(book, labels=(LabelSelector(key="mine"),))
    try:
        position = await watcher.caught_up()
        assert watcher.jobs == [pending.spec.job_id, ended.spec.job_id], "all that match, the newest first"
        assert [update.position for update in watcher.updates] == [0, 0, position]
        assert position > 0
        await book.store.cancel_job(pending.spec.job_id)
        await watcher.until_shown(pending.spec.job_id, JobState.CANCELLED)
        new = await book.admit(labels={"mine": "yes"})
        assert (await watcher.until_shown(new.spec.job_id, JobState.PENDING)).spec.labels == {"mine": "yes"}
    finally:
        await watcher.leave()


class CountingStore(JobStore):
    questions = 0

    async def summaries(self, filters: JobFilter, since: int | None) -> tuple[int, dict[str, JobSummary]]:
        self.questions += 1
        return await super().summaries(filters, since)

    async def brief(self, job_ids: Sequence[str]) -> list[JobView]:
        self.questions += 1
        return await super().brief(job_ids)


async def test_forty_who_watch_cost_the_database_little_more_than_one(book: Books) -> None:
    view = await book.admit()
    store = CountingStore(book.engine, book.notifier)
    reads = SharedReads(store)
    watchers = [Watcher(book, reads=reads) for _ in range(40)]
    try:
        for watcher in watchers:
            await watcher.caught_up()
        asked = store.questions
        await book.store.cancel_job(view.spec.job_id)
        for watcher in watchers:
            await watcher.until_shown(view.spec.job_id, JobState.CANCELLED)
        assert store.questions - asked <= 20
    finally:
        for watcher in watchers:
            await watcher.leave()


async def test_a_job_that_matches_no_more_is_told_once_more(book: Books) -> None:
    view = await book.admit()
    watcher = Watcher(book, states=frozenset({JobState.PENDING}))
    try:
        await watcher.caught_up()
        cell = await book.cell("cell")
        lease = await claimed(cell)
        await watcher.until_shown(view.spec.job_id, JobState.RUNNING)
        await cell.finish(lease, Outcome(JobState.SUCCEEDED))
        other = await book.admit()
        await watcher.until_shown(other.spec.job_id, JobState.PENDING)
        assert watcher.jobs == [view.spec.job_id] * 2 + [other.spec.job_id]
    finally:
        await watcher.leave()


async def test_from_a_position_on_nothing_is_missed(book: Books) -> None:
    """A watcher that returns gets the live jobs and those that ended meanwhile, and none that ended before."""
    old = await book.admit()
    await book.store.cancel_job(old.spec.job_id)
    async with book.engine.begin() as connection:
        ended = old.create_time - timedelta(hours=1)
        await connection.execute(jobs.update().where(jobs.c.job_id == old.spec.job_id).values(end_time=ended))
    ends, lives = await book.admit(), await book.admit()
    watcher = Watcher(book)
    position = await watcher.caught_up()
    await watcher.leave()
    await book.store.cancel_job(ends.spec.job_id)
    made = await book.admit()
    again = Watcher(book, position)
    try:
        await again.until_shown(ends.spec.job_id, JobState.CANCELLED)
        await again.caught_up()
        assert set(again.jobs) == {view.spec.job_id for view in (ends, lives, made)}
    finally:
        await again.leave()


async def test_files_are_handed_to_whoever_carries_the_job_and_go_with_it(book: Books) -> None:
    files = (FileContent("a/b.csv", b"\0\xff"), FileContent("c", b""))
    view = await book.admit(files=files, data=b'{"n": 1}')
    assert [(file.name, file.size) for file in view.spec.files] == [("a/b.csv", 2), ("c", 0)]
    cell = await book.cell("cell")
    lease = await claimed(cell)
    assert (await cell.attempt(lease)).context.files == files
    assert lease.spec.data == b'{"n": 1}'
    await remove(book, view.spec.job_id)
    async with book.engine.begin() as connection:
        assert (await connection.execute(job_files.select())).all() == []


async def test_a_delayed_job_is_taken_when_its_time_has_come(book: Books) -> None:
    late = await book.admit(delay=timedelta(hours=1))
    assert late.spec.not_before == late.create_time + timedelta(hours=1)
    past = await book.admit(not_before=late.create_time - timedelta(hours=1))
    cell = await book.cell("cell")
    assert (await claimed(cell)).job_id == past.spec.job_id
    assert await cell.claim() is None
    async with book.engine.begin() as connection:
        await connection.execute(jobs.update().values(wake_time=jobs.c.wake_time - 3600 * 1_000_000))
    assert (await claimed(cell)).job_id == late.spec.job_id
