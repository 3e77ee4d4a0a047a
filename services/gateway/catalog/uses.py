"""What needs a resource of the catalogue, and so keeps it from being deleted."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Column, Select, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import FailedPrecondition
from services.gateway.schema.budgets import budgets
from services.gateway.schema.catalog import projects, providers, repositories, templates, work_items, workers
from services.gateway.schema.hooks import hooks
from services.gateway.schema.jobs import LIVE, jobs

_MAX_LISTED: Final = 5

_REASONS: Final = {
    "project": "PROJECT_IN_USE",
    "repository": "REPOSITORY_IN_USE",
    "template": "TEMPLATE_IN_USE",
    "worker": "WORKER_IN_USE",
    "work item": "WORK_ITEM_BUSY",
}
_USES: Final[dict[str, tuple[Column[Any], ...]]] = {
    "project": (
        *(table.c.project_id for table in (repositories, providers, budgets, templates, workers, work_items, hooks)),
        jobs.c.project_id,
    ),
    "budget": (),
    "provider": (),  # a key may have to be taken away at once
    "repository": (jobs.c.repository_id, work_items.c.repository_id),
    "template": (jobs.c.template_id, workers.c.template_id, work_items.c.template_id),
    "worker": (budgets.c.worker_id, jobs.c.worker_id, work_items.c.worker_id, projects.c.default_worker_id),
    "work item": (jobs.c.work_item_id,),
}


async def check_unused(connection: AsyncConnection, kind: str, resource_id: str) -> None:
    """Raise FailedPrecondition, which lists the live jobs, resources and hooks in force that need a resource."""
    if not _USES[kind]:
        return
    statement = union_all(*(_users(column, resource_id) for column in _USES[kind])).limit(_MAX_LISTED)
    users = [f"{noun} {user_id}" for noun, user_id in (await connection.execute(statement)).all()]
    if users:
        listed = ", ".join(users) + (", …" if len(users) == _MAX_LISTED else "")
        raise FailedPrecondition(
            _REASONS[kind], f"{kind} {resource_id!r} is needed by {listed}", resource_id, metadata={"needed_by": listed}
        )


def _users(column: Column[Any], resource_id: str) -> Select[Any]:
    """Select the rows that refer to a resource in a column."""
    table = column.table
    key = table.primary_key.columns[0]
    noun = key.name.removesuffix("_id").replace("_", " ")
    return select(literal(noun), key).where(column == resource_id, *_conditions(table))


def _conditions(table: Any) -> Iterator[Any]:  # noqa: ANN401 - SQL expressions
    if table is jobs:
        yield jobs.c.state.in_(LIVE)
    elif table is hooks:
        yield hooks.c.remove_time.is_(None)
    else:
        yield table.c.delete_time.is_(None)
