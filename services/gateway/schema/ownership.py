"""Which project a thing belongs to, by its id: what each package says of its own things, for the door to ask."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Table, select


def _itself(thing_id: str) -> str:
    return thing_id


@dataclass(frozen=True, slots=True)
class Ownership:
    """Rows of (id, project_id), and `is_there` where what is deleted gives its id away.

    `key` makes of a thing's id the one that these rows have, where that is another thing's.
    """

    rows: Select[Any]
    key: Callable[[str], str] = _itself


def owned(table: Table, *, is_deletable: bool = False) -> Ownership:
    """Return whose the rows of a table are that has a project_id; `is_deletable` where it has a delete_time."""
    key = table.primary_key.columns[0]
    rows = select(key.label("id"), table.c.project_id.label("project_id"))
    return Ownership(rows.add_columns(table.c.delete_time.is_(None).label("is_there")) if is_deletable else rows)
