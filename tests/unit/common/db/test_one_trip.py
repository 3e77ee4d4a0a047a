"""Our cursor gives what SQLite's own gives, however it is read, in few trips to the connection's thread."""

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.db import one_trip

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT x FROM n LIMIT ?"


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([0, 1, 31, 32, 33, 64, 100]), st.lists(st.sampled_from([None, 1, 5, 32, 40]), max_size=6))
async def test_rows_come_once_and_in_order_however_they_are_fetched(count: int, sizes: list[int | None]) -> None:
    connection = one_trip.connect(":memory:")
    await connection
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(NUMBERS, (max(count, 1), count))
            expected = [(number,) for number in range(1, count + 1)]
            for size in sizes:
                fetched = await cursor.fetchall() if size is None else await cursor.fetchmany(size)
                taken, expected = (expected, []) if size is None else (expected[:size], expected[size:])
                assert fetched == taken
            assert await cursor.fetchone() == (expected[0] if expected else None)
            await cursor.execute("SELECT 7")
            assert await cursor.fetchall() == [(7,)], "what was left of the statement before is gone"
    finally:
        await connection.close()


async def test_facts_and_errors_are_sqlites_own(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = one_trip.connect(":memory:")
    await connection
    trips = 0
    run = connection.run

    async def counted(work: Any) -> Any:
        nonlocal trips
        trips += 1
        return await run(work)

    monkeypatch.setattr(connection, "run", counted)
    try:
        async with connection.cursor() as cursor:
            await cursor.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
            assert cursor.description is None
            await cursor.executemany("INSERT INTO things (name) VALUES (?)", [("a",), ("b",)])
            assert cursor.rowcount == 2
            await cursor.execute("INSERT INTO things (name) VALUES ('c') RETURNING id")
            assert (await cursor.fetchall(), cursor.lastrowid) == ([(3,)], 3)
            with pytest.raises(sqlite3.IntegrityError):
                await cursor.execute("INSERT INTO things (name) VALUES ('a')")
            trips = 0
            await cursor.execute("SELECT name FROM things ORDER BY id")
            description: Any = cursor.description
            assert [column[0] for column in description] == ["name"]
            assert await cursor.fetchall() == [("a",), ("b",), ("c",)]
        assert trips == 1
    finally:
        await connection.close()
