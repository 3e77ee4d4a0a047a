"""Older and newer schemas: a service's history up to a version, or with a next version that does not exist yet."""

import importlib
import itertools
import shutil
from pathlib import Path

import pytest

from tests.kit.contract import ROOT

_NUMBERS = itertools.count(1)
_NOTHING_CHECKED = "from sqlalchemy import MetaData\n\nmetadata = MetaData()\n"
_NEXT = """
from sqlalchemy import Column, MetaData, Text

from services.{service}.migrations import metadata as before

metadata = MetaData()
for table in before.sorted_tables:
    table.to_metadata(metadata)
metadata.tables["{table}"].append_column(Column("whim", Text, nullable=False, server_default=""))
"""
_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{number:04}"
down_revision = "{before}"


def upgrade():
    op.add_column("{table}", sa.Column("whim", sa.Text, nullable=False, server_default=""))
    op.create_table("whims", sa.Column("whim", sa.Text, primary_key=True))
    op.create_index("{table}_whims", "{table}", ["whim"])
"""


class Histories:
    """Makes packages of migrations for `migrate`."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        patch.syspath_prepend(directory)

    def until(self, service: str, version: str) -> str:
        """Return the history up to a version, as the program had it then."""
        files = [path for path in versions(service) if path.name[1:5] <= version]
        return self._package(files, _NOTHING_CHECKED)

    def next(self, service: str, table: str) -> str:
        """Return the history with one more version, which adds a column to a table, a table, and an index."""
        files = versions(service)
        newest = files[-1].name[1:5]
        number = int(newest) + 1
        revision = _REVISION.format(number=number, before=newest, table=table)
        return self._package(files, _NEXT.format(service=service, table=table), {f"v{number:04}_next.py": revision})

    def _package(self, files: list[Path], init: str, more: dict[str, str] | None = None) -> str:
        name = f"history_{next(_NUMBERS)}"
        package = self._directory / name
        package.mkdir()
        for path in files:
            shutil.copyfile(path, package / path.name)
        for file, source in {"__init__.py": init, **(more or {})}.items():
            (package / file).write_text(source)
        importlib.invalidate_caches()
        return name


def versions(service: str) -> list[Path]:
    """Return the files of a service's migrations, the oldest first."""
    return sorted((ROOT / "services" / service / "migrations").glob("v[0-9]*.py"))
