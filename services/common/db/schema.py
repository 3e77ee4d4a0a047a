"""Compares a database's tables with those of the code: in two statements, without alembic and without reflection."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from sqlalchemy import Column, Connection, Dialect, MetaData, Table, text

_COLUMNS: Final = {
    "sqlite": (
        'SELECT t.name, c.name, c.type, c."notnull" = 0, c.pk > 0'
        " FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"
    ),
    "postgresql": (
        "SELECT t.relname, c.attname, format_type(c.atttypid, c.atttypmod), NOT c.attnotnull,"
        " coalesce(c.attnum = ANY(k.indkey), false)"
        " FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid"
        " LEFT JOIN pg_index k ON k.indrelid = t.oid AND k.indisprimary"
        " WHERE t.relkind IN ('r', 'p') AND pg_table_is_visible(t.oid) AND c.attnum > 0 AND NOT c.attisdropped"
    ),
}
_INDEXES: Final = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
    "postgresql": "SELECT relname FROM pg_class WHERE relkind IN ('i', 'I') AND pg_table_is_visible(oid)",
}
# PostgreSQL's names for types that SQLAlchemy names otherwise.
_WORDS: Final = {"varchar": "character varying", "float": "double precision"}


class _Shape(NamedTuple):
    """The properties of a column that are compared."""

    type: str
    is_nullable: bool
    is_key: bool

    def __str__(self) -> str:
        return f"{self.type}{'' if self.is_nullable else ' not null'}{' of the primary key' if self.is_key else ''}"


def faults(connection: Connection, metadata: MetaData) -> list[str]:
    """Return a sentence for each difference between the tables of a database and those of `metadata`.

    Compared are columns with their types and nullability, primary keys, and the names of indexes. Tables and indexes
    that `metadata` does not know are ignored.
    """
    dialect = connection.dialect
    actual: dict[str, dict[str, _Shape]] = {}
    for table, column, kind, is_nullable, is_key in connection.execute(text(_COLUMNS[dialect.name])):
        actual.setdefault(table, {})[column] = _Shape(kind.lower(), bool(is_nullable), bool(is_key))
    indexes = set(connection.execute(text(_INDEXES[dialect.name])).scalars())
    return [
        fault
        for table in metadata.sorted_tables
        for fault in (
            *_column_faults(table, actual.get(table.name), dialect),
            *(f"there is no index {index.name}" for index in table.indexes if index.name not in indexes),
        )
    ]


def _column_faults(table: Table, actual: Mapping[str, _Shape] | None, dialect: Dialect) -> Iterator[str]:
    if actual is None:
        yield f"there is no table {table.name}"
        return
    for column in table.columns:
        shape, expected = actual.get(column.name), _shape(column, dialect)
        if shape is None:
            yield f"the table {table.name} has no column {column.name}"
        elif shape != expected:
            yield f"{table.name}.{column.name} is {shape}, not {expected}"
    for name in sorted(actual.keys() - table.columns.keys()):
        yield f"the table {table.name} has a column {name} that it should not have"


def _shape(column: Column[object], dialect: Dialect) -> _Shape:
    kind = column.type.compile(dialect).lower()
    if dialect.name == "postgresql":
        name, bracket, size = kind.partition("(")
        kind = f"{_WORDS.get(name, name)}{bracket}{size}"
    return _Shape(kind, bool(column.nullable), column.primary_key)
