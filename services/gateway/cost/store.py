"""Costs in SQL: sums of rows, the counters that rows become, and their retention."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Subquery,
    and_,
    delete,
    distinct,
    exists,
    func,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.agent.usage import COUNTS, UsageSum
from services.common.db.columns import from_microseconds
from services.common.db.retention import every_hour
from services.gateway.cost.model import CostGroup, CostQuery, Costs, Dimension
from services.gateway.ledger.usage import USAGE_COLUMNS, usage_of
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import executions, job_labels
from services.gateway.schema.sql import insert_if_absent
from services.gateway.schema.usage import model_usage, usage_labels, usage_totals
from services.gateway.values.jobs import LabelSelector
from services.lifecycle.model.states import ExecutionState

_ROW: Final = model_usage.c
_COLUMNS: Final = {
    Dimension.PROJECT: _ROW.project_id,
    Dimension.WORKER: func.coalesce(_ROW.worker_id, ""),
    Dimension.TEMPLATE: _ROW.template_id,
    Dimension.JOB: _ROW.job_id,
    Dimension.PROVIDER: _ROW.provider,
    Dimension.MODEL: _ROW.model,
    Dimension.DAY: _ROW.day,
}
_SUMS: Final = [func.sum(_ROW[name]).label(name) for name in USAGE_COLUMNS]
_JOBS: Final = func.count(distinct(_ROW.job_id)).label("jobs")
_KEY: Final = (_ROW.execution_id, _ROW.provider, _ROW.model, _ROW.day)
_IS_UNCOUNTED: Final = _ROW.is_counted.is_(False)
_SERIES: Final = ("project_id", "provider", "model")
_DAY: Final = 86_400_000_000
_SETTLED_DAYS: Final = 2
"""After these nothing is added to a day: no cell's clock is that far behind."""
_AT_ONCE: Final = 500


class CostStore:
    """Reads what models were used for."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def costs(self, query: CostQuery) -> Costs:
        """Return the sums that are asked for."""
        rows = list(_conditions(query))
        total = select(_JOBS, *_SUMS).where(*rows)
        keys = [_column(each, query.label_key).label(each.lower()) for each in query.group_by]
        grouped = select(*keys, _JOBS, *_SUMS).where(*rows).group_by(*keys)
        # What has no known cost comes last, as it is not 0.
        order = [
            *(key.desc() for key, each in zip(keys, query.group_by, strict=True) if each is Dimension.DAY),
            func.coalesce(func.sum(_ROW.cost_usd), -1.0).desc(),
            func.sum(_ROW.tokens).desc(),
            *keys,
        ]
        async with self._engine.begin() as connection:
            whole = (await connection.execute(total)).one()
            if not keys:
                return Costs((), 0, _group(whole, ()))
            number = (await connection.execute(select(func.count()).select_from(grouped.subquery()))).scalar_one()
            found = (await connection.execute(grouped.order_by(*order).limit(query.max_groups))).all()
        return Costs(tuple(_group(row, query.group_by) for row in found), number, _group(whole, ()))

    async def run_retention(self, keep_days: float) -> None:
        """Turn old rows into counters, and remove those older than `keep_days`, every hour; 0 keeps all."""

        async def settle() -> bool:
            counted = await count_some(self._engine)
            return await remove_expired(self._engine, keep_days) > 0 if keep_days and not counted else counted > 0

        await every_hour("usage of models", settle)


async def usage_by_series(connection: AsyncConnection) -> dict[tuple[str, str, str], UsageSum]:
    """Return all that was ever used, by project, provider and model."""
    sums: dict[tuple[str, str, str], UsageSum] = {}
    recent = select(*(_ROW[name] for name in _SERIES), *_SUMS).where(_IS_UNCOUNTED)
    for query in (select(usage_totals), recent.group_by(*(_ROW[name] for name in _SERIES))):
        for row in (await connection.execute(query)).all():
            key = (row.project_id, row.provider, row.model)
            sums[key] = sums.get(key, UsageSum()) + usage_of(row)
    return sums


async def count_some(engine: AsyncEngine, at_once: int = _AT_ONCE) -> int:
    """Add some of the rows that change no more to the totals, by the database's clock; return how many."""
    live = (ExecutionState.PENDING, ExecutionState.RUNNING)
    is_live = exists().where(executions.c.execution_id == _ROW.execution_id, executions.c.state.in_(live))
    async with engine.begin() as connection:
        settled = _ROW.day < await _day_before(connection, _SETTLED_DAYS)
        found = select(model_usage).where(_IS_UNCOUNTED, settled, ~is_live).order_by(_ROW.day).limit(at_once)
        rows = (await connection.execute(found.with_for_update(skip_locked=True))).all()
        sums: dict[tuple[str, str, str], UsageSum] = {}
        for row in rows:
            key = (row.project_id, row.provider, row.model)
            sums[key] = sums.get(key, UsageSum()) + usage_of(row)
        for key, usage in sorted(sums.items()):  # in one order, so that two who add wait for each other in it
            await _add(connection, dict(zip(_SERIES, key, strict=True)), usage)
        if rows:
            these = tuple_(*_KEY).in_([(row.execution_id, row.provider, row.model, row.day) for row in rows])
            await connection.execute(update(model_usage).where(these).values(is_counted=True))
    return len(rows)


async def remove_expired(engine: AsyncEngine, keep_days: float, at_once: int = _AT_ONCE) -> int:
    """Remove some of the rows that are in the totals and older than `keep_days`, with their labels; return how many."""
    async with engine.begin() as connection:
        old = _ROW.is_counted & (_ROW.day < await _day_before(connection, keep_days))
        found = select(*_KEY).where(old).order_by(_ROW.day).limit(at_once)
        rows = (await connection.execute(found.with_for_update(skip_locked=True))).all()
        if rows:
            await connection.execute(delete(model_usage).where(tuple_(*_KEY).in_([tuple(row) for row in rows])))
            unused = ~exists().where(_ROW.job_id == usage_labels.c.job_id)
            await connection.execute(delete(usage_labels).where(unused))
    return len(rows)


async def _add(connection: AsyncConnection, key: dict[str, str], usage: UsageSum) -> None:
    await insert_if_absent(connection, usage_totals, {**key, **dict.fromkeys(COUNTS, 0)})
    more: dict[str, Any] = {name: usage_totals.c[name] + getattr(usage, name) for name in COUNTS}
    if usage.cost_usd is not None:
        more["cost_usd"] = func.coalesce(usage_totals.c.cost_usd, 0.0) + usage.cost_usd
    this = and_(*(usage_totals.c[name] == value for name, value in key.items()))
    await connection.execute(update(usage_totals).where(this).values(more))


async def _day_before(connection: AsyncConnection, days: float) -> str:
    """Return the day, in UTC, that was so many days ago by the database's clock."""
    moment = (await connection.execute(select(now() - round(days * _DAY)))).scalar_one()
    return f"{from_microseconds(moment):%Y-%m-%d}"


def _column(dimension: Dimension, label_key: str) -> ColumnElement[str]:
    if dimension is not Dimension.LABEL:
        return _COLUMNS[dimension]
    labels = _labels(label_key)
    value = select(labels.c.value).where(labels.c.job_id == _ROW.job_id).limit(1).scalar_subquery()
    return func.coalesce(value, "")


def _labels(key: str) -> Subquery:
    """Return the jobs that have a label, with its values: those that there are, and those that were removed."""
    tables = (job_labels, usage_labels)
    return union_all(*(select(each.c.job_id, each.c.value).where(each.c.key == key) for each in tables)).subquery()


def _conditions(query: CostQuery) -> Iterator[ColumnElement[bool]]:
    if query.visible is not None:
        yield _ROW.project_id.in_(sorted(query.visible))
    for name in ("project_id", "worker_id", "template_id", "provider", "model"):
        if value := getattr(query, name):
            yield _ROW[name] == value
    if query.first_day:
        yield _ROW.day >= query.first_day
    if query.last_day:
        yield _ROW.day <= query.last_day
    yield from map(_selected, query.labels)


def _selected(selector: LabelSelector) -> ColumnElement[bool]:
    labels = _labels(selector.key)
    labelled = select(labels.c.job_id)
    if selector.values:
        labelled = labelled.where(labels.c.value.in_(selector.values))
    return _ROW.job_id.not_in(labelled) if selector.lacks else _ROW.job_id.in_(labelled)


def _group(row: Any, dimensions: Sequence[Dimension]) -> CostGroup:  # noqa: ANN401 - a row with these columns
    key = {each: getattr(row, each.lower()) for each in dimensions}
    return CostGroup(key=key, jobs=row.jobs, usage=usage_of(row))
