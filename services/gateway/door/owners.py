"""Checks that the resources which a request names belong to given projects, by the packages that own them.

A new kind of resource with ids has an entry in its package's `OWNERS` that says how to find its project; the contract
tests fail for an id field of the API that is neither there nor in `WITHOUT_PROJECT`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.ownership import Ownership

Owners = Mapping[str, Ownership]
"""How to find the project of a resource, by the kind of the resource."""

PROJECT: Final = "project"

WITHOUT_PROJECT: Final = frozenset(
    {"request", "resource", "message", "permission", "token", "key", "cell", "coordinator", "commit", "base_commit"}
)
"""What else is named by an id: parts of resources that have an owner, and what belongs to no project."""


@dataclass(frozen=True, slots=True)
class NamedResource:
    """A resource that a request names; `is_new` if the request is to make it, with an id of the caller's choice."""

    kind: str
    resource_id: str
    is_new: bool = False


async def all_within(
    connection: AsyncConnection, owners: Owners, named: Iterable[NamedResource], projects: frozenset[str]
) -> bool:
    """True when every named resource belongs to one of these projects; one that does not exist does not."""
    by_kind: dict[str, dict[str, bool]] = {}
    for resource in named:
        is_project = resource.kind == PROJECT
        key = resource.resource_id if is_project else owners[resource.kind].key(resource.resource_id)
        by_kind.setdefault(resource.kind, {})[key] = resource.is_new
    if not projects.issuperset(by_kind.pop(PROJECT, {})):
        return False
    for kind, is_new_by_id in by_kind.items():
        if not await _are_within(connection, owners[kind], is_new_by_id, projects):
            return False
    return True


async def _are_within(
    connection: AsyncConnection, ownership: Ownership, is_new_by_id: Mapping[str, bool], projects: frozenset[str]
) -> bool:
    columns = ownership.rows.selected_columns
    rows = await connection.execute(ownership.rows.where(columns.id.in_(sorted(is_new_by_id))).distinct())
    missing = {key for key, is_new in is_new_by_id.items() if not is_new}
    for row in rows.mappings():
        if is_new_by_id[row["id"]] and not row.get("is_there", True):
            continue  # the resource is gone, so its id is free
        if row["project_id"] not in projects:
            return False
        missing.discard(row["id"])
    return not missing
