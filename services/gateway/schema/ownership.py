"""Which project a thing belongs to, by its id: each package declares it for its own things, and the door asks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Table, select


def _itself(thing_id: str) -> str:
    return thing_id


@dataclass(frozen=True, slots=True)
class Ownership:
    """Rows of (id, project_id), and `is_there` for things whose id is free again after their deletion.

    `key` converts a thing's id to the id in these rows, when they are of another type of thing.
    """

    rows: Select[Any]
    key: Callable[[str], str] = _itself


def owned(table: Table, *, is_deletable: bool = False) -> Ownership:
    """Return the ownership of the rows of a table with a project_id, and a delete_time if it `is_deletable`."""
    key = table.primary_key.columns[0]
    rows = select(key.label("id"), table.c.project_id.label("project_id"))
    return Ownership(rows.add_columns(table.c.delete_time.is_(None).label("is_there")) if is_deletable else rows)
