"""Checks of parts of a request that several of its readers share."""

import os

from services.common.errors import Invalid
from services.common.ids import ID_RULE, is_id

Violations = list[tuple[str, str]]
"""Pairs of a field's path and what is wrong with it."""

_MAX_SIDE_LENGTH = 1000


def id_violations(field: str, value: str) -> Violations:
    """Return what is wrong with a required id."""
    if not value:
        return [(field, "is required")]
    return [] if is_id(value) else [(field, f"must be {ID_RULE}")]


def path_violations(field: str, path: str) -> Violations:
    """Return what is wrong with a path that must be absolute."""
    if not path.startswith("/"):
        return [(field, "must be an absolute path")]
    if "\0" in path or len(path.encode()) > os.pathconf("/", "PC_PATH_MAX"):
        return [(field, "must be at most 4096 bytes, and none of them NUL")]
    return []


def size_violations(field: str, rows: int, columns: int) -> Violations:
    """Return what is wrong with a window's size."""
    if 1 <= rows <= _MAX_SIDE_LENGTH and 1 <= columns <= _MAX_SIDE_LENGTH:
        return []
    return [(field, f"must be 1 to {_MAX_SIDE_LENGTH} rows and columns")]


def refuse(violations: Violations) -> None:
    """Raise Invalid if there are any violations."""
    if violations:
        raise Invalid(violations)
