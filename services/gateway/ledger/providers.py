"""Providers of models as agents have them when they start. Everything here works inside the caller's transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import ColumnElement, case, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.agent.providers import ModelProvider
from services.common.db.columns import as_number
from services.gateway.schema.catalog import providers
from services.gateway.values.catalog import Provider
from services.lifecycle.model.job_spec import JobSpec

_COLUMNS: Final = [providers.c[each.name] for each in fields(Provider)]
_IN_ORDER: Final = (
    case((providers.c.project_id.is_(None), 1), else_=0),
    providers.c.order,
    as_number(providers.c.create_time),
    providers.c.provider_id,
)


async def providers_of(
    connection: AsyncConnection, project_id: str, names: Sequence[str] = (), *, on_coordinator: bool = False
) -> tuple[ModelProvider, ...]:
    """Return the providers, with their keys, that an agent of a project has: those of the names, or else all.

    They are in the order in which they are tried, which is that of the names. A coordinator gets those alone that are
    for coordinators.
    """
    query = select(*_COLUMNS).where(*_conditions(project_id, names, on_coordinator=on_coordinator))
    rows = (await connection.execute(query.order_by(*_IN_ORDER))).mappings()
    found = [Provider(**row).to_agent() for row in rows]
    return tuple(sorted(found, key=lambda each: names.index(each.name)) if names else found)


def has_providers(spec: JobSpec, *, on_coordinator: bool = False) -> ColumnElement[bool]:
    """Return the condition that the agent of a job has a provider: then it is to be asked for when the agent starts."""
    return exists().where(*_conditions(spec.project_id, spec.agent.providers, on_coordinator=on_coordinator))


def _conditions(project_id: str, names: Sequence[str], *, on_coordinator: bool) -> Iterator[ColumnElement[Any]]:
    columns = providers.c
    yield columns.delete_time.is_(None)
    yield columns.disabled.is_(False)
    yield or_(columns.project_id == project_id, columns.project_id.is_(None))
    if names:
        yield columns.provider_id.in_(names)
    if on_coordinator:
        yield columns.for_coordinators.is_(True)
