"""Removes what was replaced or deleted from a database's files, where it stays for an unknown time otherwise."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


async def forget_replaced(engine: AsyncEngine, tables: Iterable[str], large_tables: Iterable[str] = ()) -> None:
    """Rewrite tables without their former content.

    SQLite rewrites the whole file, and empties its log of writes. PostgreSQL rewrites `tables`, which are locked
    meanwhile, and marks what is free in `large_tables`; its own log keeps former content until it is recycled.
    """
    async with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            await _in_postgresql(connection, tables, large_tables)
        else:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None  # noqa: S101 - it is connected
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                await (await driver.execute(statement)).close()


async def _in_postgresql(connection: AsyncConnection, tables: Iterable[str], large_tables: Iterable[str]) -> None:
    from services.common.db.bounded import outside_of_transactions  # noqa: PLC0415 - a driver that few services need

    async with outside_of_transactions(connection) as execute:
        for statement in (*(f"VACUUM FULL {each}" for each in tables), *(f"VACUUM {each}" for each in large_tables)):
            await execute(statement)
