"""What the gateway's stores share: column types, texts, safe inserts, pages."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import JSON, ColumnElement, Dialect, Executable, Select, String, Table, literal
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from services.common.db.paging import Key, Page

T = TypeVar("T")

_PAGE_BYTES = 2 << 20  # of a message's 4 MiB; no item of a list is larger than 1 MiB


class OptionalId(TypeDecorator[str]):
    """A reference that may be missing: NULL in the table, as foreign keys allow, and empty in the value."""

    impl = String(63)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - inherited
        """Return an empty id as NULL."""
        return value or None

    def process_result_value(self, value: str | None, dialect: Dialect) -> str:  # noqa: ARG002 - inherited
        """Return NULL as an empty id."""
        return value or ""


class JsonValue(TypeDecorator[T], Generic[T]):
    """A value of ours (a dataclass, a tuple of strings), stored as JSON. Fields that are None are left out."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: type[T]) -> None:
        super().__init__()
        # SQLAlchemy's cache tells two such types apart by attributes with the names of these parameters.
        self.kind = kind
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def process_bind_param(self, value: T | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002 - any JSON
        """Return a value as JSON."""
        return None if value is None else self._adapter.dump_python(value, mode="json", exclude_none=True)

    def process_result_value(self, value: Any, dialect: Dialect) -> T | None:  # noqa: ANN401, ARG002 - any JSON
        """Return the value of some JSON."""
        return None if value is None else self._adapter.validate_python(value)


class JsonText(FunctionElement[str]):
    """A string in a text column that holds a JSON object, by its key; NULL when there is none."""

    name = "json_text"
    type = String()
    inherit_cache = True

    def __init__(self, column: ColumnElement[str], key: str) -> None:
        super().__init__(column, literal(key, String))


@compiles(JsonText, "sqlite")
def _in_sqlite(element: JsonText, compiler: Any, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    column, key = (compiler.process(each, **options) for each in element.clauses)
    return f"json_extract({column}, '$.' || {key})"


@compiles(JsonText, "postgresql")
def _in_postgresql(element: JsonText, compiler: Any, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    column, key = (compiler.process(each, **options) for each in element.clauses)
    # PostgreSQL refuses an escaped NUL, whichever string of the object it is in.
    return f"CAST(replace({column}, '\\u0000', '\\ufffd') AS json) ->> {key}"


def storable_text(text: str) -> str:
    """Return a text as databases can store it: PostgreSQL stores no NUL, and a program's output may contain one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Insertion:
    """A statement that inserts a row into a table, built once, because building it costs more than executing it.

    `computed` are the columns that are the same in each row, or expressions; `execute` gets the others. A row whose
    primary key exists already stays as it is, or gets the columns `instead` of the new one where it meets `where`.
    """

    def __init__(
        self,
        table: Table,
        computed: Mapping[str, Any],
        *,
        instead: Collection[str] = (),
        where: ColumnElement[bool] | None = None,
    ) -> None:
        self._table = table
        self._computed = computed
        self._instead = instead
        self._where = where
        self._by_dialect: dict[str, Executable] = {}

    async def execute(self, connection: AsyncConnection, row: Mapping[str, Any]) -> bool:
        """Insert a row; return True when it was written.

        On PostgreSQL it waits for a transaction that is inserting the same key, and the result depends on that one's.
        """
        dialect = connection.dialect.name
        if dialect not in self._by_dialect:
            self._by_dialect[dialect] = self._build(dialect)
        # PostgreSQL has no row count here.
        return (await connection.execute(self._by_dialect[dialect], row)).first() is not None

    def _build(self, dialect: str) -> Executable:
        insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        key = self._table.primary_key.columns
        new = insert(self._table).values(self._computed)
        if not self._instead:
            return new.on_conflict_do_nothing().returning(*key)
        values = {column: new.excluded[column] for column in self._instead}
        return new.on_conflict_do_update(index_elements=key, set_=values, where=self._where).returning(*key)


async def insert_if_absent(connection: AsyncConnection, table: Table, values: dict[str, Any]) -> bool:
    """Insert a row unless one with the same primary key exists, as an Insertion does; return True when it was."""
    return await Insertion(table, values).execute(connection, {})


async def read_page(
    connection: AsyncConnection,
    statement: Select[Any],
    page: Page,
    make: Callable[..., T],
    key_of: Callable[[T], Key],
) -> tuple[list[T], str]:
    """Return a page and the token of the next; `statement` is from `page.select`, `make` takes its columns by name.

    The page ends early when its items are large: the response has to fit into one message, and into memory.
    """
    items: list[T] = []
    size = 0
    async with connection.stream(statement) as rows:
        async for row in rows.mappings():
            items.append(make(**row))
            if size > _PAGE_BYTES:  # the page ends before this one
                page = replace(page, size=len(items) - 1)
                break
            size += len(repr(items[-1]).encode())
    return page.cut(items, key_of)
