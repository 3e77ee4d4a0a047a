"""Whether what a request names belongs to projects, by asking the packages that own it.

Whoever adds a kind of thing that has ids says whose it is in its package's `OWNERS`; an id field of the API that stands
neither there nor in `WITHOUT_PROJECT` fails the tests of the contract.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.ownership import Ownership

Owners = Mapping[str, Ownership]
"""Of each kind of thing that belongs to a project, whose its things are."""

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


async def all_within(
    connection: AsyncConnection, owners: Owners, named: Iterable[Named], projects: frozenset[str]
) -> bool:
    """Say whether everything that is named belongs to these projects; what is nowhere does not."""
    by_kind: dict[str, dict[str, bool]] = {}
    for thing in named:
        key = thing.thing_id if thing.kind == PROJECT else owners[thing.kind].key(thing.thing_id)
        by_kind.setdefault(thing.kind, {})[key] = thing.is_new
    if not projects.issuperset(by_kind.pop(PROJECT, {})):
        return False
    for kind, things in by_kind.items():
        if not await _are_within(connection, owners[kind], things, projects):
            return False
    return True


async def _are_within(
    connection: AsyncConnection, ownership: Ownership, things: Mapping[str, bool], projects: frozenset[str]
) -> bool:
    columns = ownership.rows.selected_columns
    rows_found = await connection.execute(ownership.rows.where(columns.id.in_(sorted(things))).distinct())
    missing = {thing_id for thing_id, is_new in things.items() if not is_new}
    for row in rows_found.mappings():
        if things[row["id"]] and not row.get("is_there", True):
            continue  # its id is free
        if row["project_id"] not in projects:
            return False
        missing.discard(row["id"])
    return not missing
