"""Which jobs a filter means, in SQL."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement

from services.gateway.ledger.labels import selected
from services.gateway.schema.jobs import IS_LIVE, jobs
from services.gateway.values.jobs import JobFilter
from services.lifecycle.model.states import JobState

_LIVE = frozenset(state for state in JobState if not state.is_final)


def conditions(wanted: JobFilter) -> Iterator[ColumnElement[bool]]:
    """Yield what must hold of a job."""
    if wanted.visible is not None:
        yield jobs.c.project_id.in_(sorted(wanted.visible))
    if wanted.project_id:
        yield jobs.c.project_id == wanted.project_id
    if wanted.states == _LIVE:
        yield IS_LIVE  # in the words of an index that is small
    elif wanted.states:
        yield jobs.c.state.in_(sorted(wanted.states))
    if wanted.kinds:
        yield jobs.c.kind.in_(sorted(wanted.kinds))
    if wanted.worker_id:
        yield jobs.c.worker_id == wanted.worker_id
    if wanted.work_item_id:
        yield jobs.c.work_item_id == wanted.work_item_id
    yield from map(selected, wanted.labels)
    if wanted.created_after is not None:
        yield jobs.c.create_time >= wanted.created_after
    if wanted.created_before is not None:
        yield jobs.c.create_time < wanted.created_before
