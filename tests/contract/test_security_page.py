"""Each promise of docs/security.md is held by tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.kit.contract import ROOT

_ROW = re.compile(r"^\| (?!border |---)(.*) \|$", re.MULTILINE)
ROWS = [tuple(row.split(" | ")) for row in _ROW.findall((ROOT / "docs" / "security.md").read_text())]


@cache
def names_in(path: Path) -> set[str]:
    """Return the names of the test functions of a module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_promise_is_held_by_tests(row: tuple[str, ...]) -> None:
    border, promise, held_by = row
    assert promise.endswith("."), border
    ids = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", held_by)
    assert ids, border
    assert ", ".join(f"`{path}::{name}`" for path, name in ids) == held_by
    assert [f"{path}::{name}" for path, name in ids if name not in names_in(ROOT / path)] == []
