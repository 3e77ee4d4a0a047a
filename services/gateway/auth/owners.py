"""Which project a thing belongs to, by its id: for whatever a request can name.

Whoever adds a kind of thing that has ids adds a line to `OWNERS`; an id field of the API that neither stands there nor
in `WITHOUT_PROJECT` fails the tests of the contract.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.catalog.tables import repositories, templates, work_items, workers
from services.gateway.checkpoints.tables import checkpoints
from services.gateway.hooks.tables import hook_calls, hooks
from services.gateway.jobs.tables import executions, jobs


def _of(table: Table, key: str) -> Select[Any]:
    return select(table.c[key].label("id"), table.c.project_id.label("project_id"))


def _of_catalog(table: Table, key: str) -> Select[Any]:
    return _of(table, key).add_columns(table.c.delete_time.is_(None).label("is_there"))


_RUNS: Final = executions.join(jobs, jobs.c.job_id == executions.c.job_id)

OWNERS: Final[Mapping[str, Select[Any]]] = {
    "repository": _of_catalog(repositories, "repository_id"),
    "template": _of_catalog(templates, "template_id"),
    "worker": _of_catalog(workers, "worker_id"),
    "work_item": _of_catalog(work_items, "work_item_id"),
    "hook": _of(hooks, "hook_id"),
    "call": _of(hook_calls, "call_id"),
    "job": _of(jobs, "job_id"),
    "checkpoint": _of(checkpoints, "checkpoint_id"),
    "execution": select(executions.c.execution_id.label("id"), jobs.c.project_id).select_from(_RUNS),
    "workspace": select(executions.c.workspace_id.label("id"), jobs.c.project_id).select_from(_RUNS),
    "snapshot": select(executions.c.execution_id.label("id"), jobs.c.project_id).select_from(_RUNS),
}
"""For each kind of thing, rows of (id, project_id), and `is_there` where what is deleted gives its id away."""

PROJECT: Final = "project"

WITHOUT_PROJECT: Final = frozenset(
    {"request", "resource", "message", "permission", "token", "cell", "coordinator", "commit", "base_commit"}
)
"""What else is named by an id: parts of things that have an owner, and what is no project's."""


@dataclass(frozen=True, slots=True)
class Named:
    """A thing that a request names; `is_new` for one that it is to make, by an id of the caller's choice."""

    kind: str
    thing_id: str
    is_new: bool = False


async def all_within(connection: AsyncConnection, named: Iterable[Named], projects: frozenset[str]) -> bool:
    """Say whether everything that is named belongs to these projects; what is nowhere does not."""
    by_kind: dict[str, dict[str, bool]] = {}
    for thing in named:
        by_kind.setdefault(thing.kind, {})[_key(thing)] = thing.is_new
    if not projects.issuperset(by_kind.pop(PROJECT, {})):
        return False
    for kind, things in by_kind.items():
        if not await _are_within(connection, OWNERS[kind], things, projects):
            return False
    return True


def _key(thing: Named) -> str:
    """Return what stands for a thing in `OWNERS`: for a snapshot the execution that it is named after, and is of."""
    return "exec-" + thing.thing_id.removeprefix("snap-") if thing.kind == "snapshot" else thing.thing_id


async def _are_within(
    connection: AsyncConnection, owners: Select[Any], things: Mapping[str, bool], projects: frozenset[str]
) -> bool:
    columns = owners.selected_columns
    found = await connection.execute(owners.where(columns.id.in_(sorted(things))).distinct())
    missing = {thing_id for thing_id, is_new in things.items() if not is_new}
    for row in found.mappings():
        if things[row["id"]] and not row.get("is_there", True):
            continue  # its id is free
        if row["project_id"] not in projects:
            return False
        missing.discard(row["id"])
    return not missing
