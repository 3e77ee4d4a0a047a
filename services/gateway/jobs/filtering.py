"""Which jobs a filter means, in SQL."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement

from services.gateway.ledger.labels import selected
from services.gateway.schema.jobs import IS_LIVE, jobs
from services.gateway.values.jobs import JobFilter
from services.lifecycle.model.states import JobState

_LIVE = frozenset(state for state in JobState if not state.is_final)


def conditions(filters: JobFilter) -> Iterator[ColumnElement[bool]]:
    """Yield what must hold of a job."""
    if filters.visible is not None:
        yield jobs.c.project_id.in_(sorted(filters.visible))
    if filters.project_id:
        yield jobs.c.project_id == filters.project_id
    if filters.states == _LIVE:
        yield IS_LIVE  # in the words of an index that is small
    elif filters.states:
        yield jobs.c.state.in_(sorted(filters.states))
    if filters.kinds:
        yield jobs.c.kind.in_(sorted(filters.kinds))
    if filters.worker_id:
        yield jobs.c.worker_id == filters.worker_id
    if filters.work_item_id:
        yield jobs.c.work_item_id == filters.work_item_id
    yield from map(selected, filters.labels)
    if filters.created_after is not None:
        yield jobs.c.create_time >= filters.created_after
    if filters.created_before is not None:
        yield jobs.c.create_time < filters.created_before
