"""What the gateway's stores share: columns of their own, safe inserts, pages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import JSON, Dialect, Select, String, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeDecorator

from services.common.db.paging import Key, Page

T = TypeVar("T")

_PAGE_BYTES = 2 << 20  # of a message's 4 MiB; nothing that is listed has more than 1 MiB


class OptionalId(TypeDecorator[str]):
    """A reference that may be missing: NULL in the table, where a foreign key allows it, and empty in the value."""

    impl = String(63)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - inherited
        """See TypeDecorator."""
        return value or None

    def process_result_value(self, value: str | None, dialect: Dialect) -> str:  # noqa: ARG002 - inherited
        """See TypeDecorator."""
        return value or ""


class JsonValue(TypeDecorator[T], Generic[T]):
    """A value of our own (a dataclass, a tuple of strings) kept as JSON; fields that are None are left out."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: type[T]) -> None:
        super().__init__()
        self.kind = kind  # what tells two such types apart in SQLAlchemy's cache
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def process_bind_param(self, value: T | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002 - any JSON
        """See TypeDecorator."""
        return None if value is None else self._adapter.dump_python(value, mode="json", exclude_none=True)

    def process_result_value(self, value: Any, dialect: Dialect) -> T | None:  # noqa: ANN401, ARG002 - any JSON
        """See TypeDecorator."""
        return None if value is None else self._adapter.validate_python(value)


async def insert_if_absent(connection: AsyncConnection, table: Table, values: dict[str, Any]) -> bool:
    """Insert a row unless one of the same primary key is there; say whether it was inserted.

    On PostgreSQL it waits for a transaction that is inserting the same key: the answer is what that one came to.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values).on_conflict_do_nothing().returning(*table.primary_key.columns)
    return (await connection.execute(statement)).first() is not None  # PostgreSQL's row count is not told here


async def read_page(
    connection: AsyncConnection,
    statement: Select[Any],
    page: Page,
    make: Callable[..., T],
    key_of: Callable[[T], Key],
) -> tuple[list[T], str]:
    """Return a page and the token of the next; `statement` is of `page.select`, `make` takes its columns by name.

    The page ends early where its things are large: the answer has to fit into one message, and into memory.
    """
    things: list[T] = []
    size = 0
    async with connection.stream(statement) as rows:
        async for row in rows.mappings():
            things.append(make(**row))
            if size > _PAGE_BYTES:  # the page ends before this one
                page = replace(page, size=len(things) - 1)
                break
            size += len(repr(things[-1]).encode())
    return page.cut(things, key_of)
