"""On a full disk, whatever is committed can be moved from SQLite's log into the database, and is when nobody reads."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database, reading, sqlite_url
from services.common.db.room import LOG_BYTES, SPARE_BYTES, Blocks, keep_room
from services.common.errors import Unavailable
from services.common.room import is_out_of_room
from tests.kit.disks import fill, make_room, needs_mount, small_disk, use_up_inodes

pytestmark = needs_mount

MIB = 1 << 20


class Database:
    """A database on a disk of its own, and a look at it from another process's point of view."""

    def __init__(self, engine: AsyncEngine, disk: Path) -> None:
        self.engine, self.disk = engine, disk
        self.path = disk / "some.db"

    async def add(self, size: int) -> bool:
        """Add a row of so many bytes; return False when there is no room for it."""
        return await self._run("INSERT INTO things VALUES (zeroblob(:size))", size=size)

    async def clear(self) -> bool:
        """Delete all rows but the first; return False when there is no room for it."""
        while len(await self.sizes()) > 1:
            if not await self._run("DELETE FROM things WHERE rowid = (SELECT max(rowid) FROM things)"):
                return False
        return True

    async def shrink(self) -> bool:
        """Make the first row smaller; return False when there is no room for that."""
        return await self._run("UPDATE things SET data = 'x' WHERE rowid = 1")

    async def _run(self, statement: str, **values: int) -> bool:
        try:
            async with self.engine.begin() as connection:
                await connection.execute(text(statement), values)
        except Unavailable as error:
            if not is_out_of_room(error):
                raise
            return False
        return True

    async def add_until_full(self, size: int) -> int:
        count = 0
        while await self.add(size):
            count += 1
        return count

    async def sizes(self) -> list[int]:
        async with reading(self.engine) as connection:
            return list((await connection.execute(text("SELECT length(data) FROM things"))).scalars())

    async def log_is_short(self) -> bool:
        return Path(f"{self.path}-wal").stat().st_size <= LOG_BYTES

    def left_in_log(self) -> int:
        """Move what is in the log into the database; return how many pages could not be."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            busy = 1
            while busy:  # somebody else does it at the moment
                busy, log, moved = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            return int(log - moved)

    @contextlib.contextmanager
    def read_slowly(self) -> Iterator[None]:
        """Keep the log from being begun anew, as a backup does."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM things").fetchall()
            yield


@asynccontextmanager
async def on_a_disk(directory: Path, size: str, *, kept: bool = True) -> AsyncIterator[Database]:
    """Give a database with a table, and a row of 64 KiB; `kept`: as services keep its room."""
    with small_disk(directory / "disk", size=size, inodes=100) as disk:
        engine = open_database(sqlite_url(disk / "some.db"))
        keeping = asyncio.create_task(keep_room(engine)) if kept else None
        try:
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE things (data BLOB)"))
                await connection.execute(text("INSERT INTO things VALUES (zeroblob(1 << 16))"))
            yield Database(engine, disk)
        finally:
            if keeping:
                keeping.cancel()
                await asyncio.wait([keeping])
            await engine.dispose()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.common.db.room._EVERY_SECONDS", 0.02)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("what", [fill, use_up_inodes])
async def test_a_database_is_written_on_a_full_disk(what: Callable[[Path], Path], tmp_path: Path) -> None:
    """As long as it grows by no more than what is set aside for it."""
    async with on_a_disk(tmp_path, "20m") as database:
        what(database.disk)
        for _ in range(60):
            assert await database.add(20_000)
            async with database.engine.begin() as connection:  # what is deleted is written too: 7 MiB in all
                await connection.execute(text("UPDATE things SET data = randomblob(100000) WHERE rowid = 1"))
        assert len(await database.sizes()) == 61


async def test_what_has_no_room_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with on_a_disk(tmp_path, "20m") as database:
        ballast = fill(database.disk)
        count = await database.add_until_full(100_000)
        assert count >= SPARE_BYTES // 4 // 102_400  # a row has 25 pages
        assert len(await database.sizes()) == count + 1
        assert database.left_in_log() == 0
        await until(database.clear)
        await until(partial(database.add, 100_000))
        make_room(ballast)
        await until(partial(database.add, 2 * MIB))
        assert sorted(await database.sizes()) == [1 << 16, 100_000, 2 * MIB]


async def test_a_log_that_filled_the_disk_is_given_back_when_its_reader_is_gone(tmp_path: Path) -> None:
    """Nobody gives any room: what the log has taken is all there was, and nobody writes to it."""
    async with on_a_disk(tmp_path, "32m") as database:
        with database.read_slowly():
            ballast = fill(database.disk)
            with ballast.open("r+b") as file:
                file.truncate(ballast.stat().st_size - 12 * MIB)
            count = 0
            while await database.add(100_000) and await database.clear():
                count += 1
            assert count > 50
            fill(database.disk)
            assert not await database.log_is_short()
        await until(database.log_is_short)
        assert await database.add(100_000)


async def test_what_needs_no_room_in_the_database_is_not_refused(tmp_path: Path) -> None:
    """Another program has made it grow by more than there is room for."""
    async with on_a_disk(tmp_path, "40m") as database:
        with database.read_slowly():
            with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
                other.execute("INSERT INTO things VALUES (zeroblob(?))", (SPARE_BYTES + 4 * MIB,))
            ballast = fill(database.disk)
            with ballast.open("r+b") as file:
                file.truncate(ballast.stat().st_size - MIB)
            assert not await database.add(100_000)
            await until(database.shrink)


WRITER = """
import os, sqlite3, sys
reader, writer = (sqlite3.connect(sys.argv[1], isolation_level=None) for _ in range(2))
reader.execute("BEGIN")
reader.execute("SELECT * FROM things").fetchall()
for size in range(1 << 20, (1 << 20) + 8):
    writer.execute("UPDATE things SET data = zeroblob(?)", (size,))
os.kill(os.getpid(), 9)
"""


async def test_a_long_log_of_a_killed_process_is_given_back_at_the_start(tmp_path: Path) -> None:
    """Although its index has no room to begin anew."""
    with small_disk(tmp_path / "disk", size="20m") as disk:
        path = disk / "some.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as made:
            made.executescript("PRAGMA journal_mode = WAL; CREATE TABLE things (data BLOB)")
            made.execute("INSERT INTO things VALUES (zeroblob(4 << 20))")
            made.execute("UPDATE things SET data = ''")  # the database need not grow
        subprocess.run([sys.executable, "-c", WRITER, path], check=False)
        Path(f"{path}-shm").write_bytes(b"")
        fill(disk)
        engine = open_database(sqlite_url(path))
        database = Database(engine, disk)
        try:
            assert await database.add(100_000)
            assert await database.sizes() == [(1 << 20) + 7, 100_000]
        finally:
            await engine.dispose()


COMES_AND_GOES = """
import os, sys
print(flush=True)
while True:
    os.close(os.open(sys.argv[1], os.O_CREAT))
    os.unlink(sys.argv[1])
"""


def test_a_log_may_be_removed_at_any_time(tmp_path: Path) -> None:
    log = tmp_path / "test.db-wal"
    blocks = Blocks(log)
    with subprocess.Popen([sys.executable, "-S", "-c", COMES_AND_GOES, log], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        try:
            assert all(blocks.length >= 0 for _ in range(20_000))
            assert all(blocks.ensure(LOG_BYTES) for _ in range(1000))
        finally:
            other.kill()


async def test_reading_needs_no_room(tmp_path: Path) -> None:
    async with on_a_disk(tmp_path, "20m", kept=False) as database:
        with database.read_slowly():
            fill(database.disk)
            await database.add_until_full(100_000)
            sizes = await database.sizes()
            async with database.engine.begin() as connection:
                assert list((await connection.execute(text("SELECT length(data) FROM things"))).scalars()) == sizes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_the_log_can_be_emptied_at_any_time(seed: int, tmp_path: Path) -> None:
    """Whoever fills the disk, and gives room, and reads, whenever."""
    random = Random(seed)
    expected = [1 << 16]
    async with on_a_disk(tmp_path, "24m", kept=True) as database:
        reader, ballast = contextlib.ExitStack(), None
        for _ in range(60):
            match random.choice(["add", "add", "add", "add many", "delete", "read", "stop", "fill", "fill", "room"]):
                case "add":
                    size = random.choice([10, 5_000, 100_000, MIB, 2 * MIB])
                    expected += [size] if await database.add(size) else []
                case "add many":
                    for _ in range(40):
                        expected += [30_000] if await database.add(30_000) else []
                case "delete":
                    await database.clear()
                    expected = await database.sizes()
                case "read":
                    reader.close()
                    reader.enter_context(database.read_slowly())
                case "stop":
                    reader.close()
                    assert database.left_in_log() == 0
                case "fill":
                    ballast = fill(database.disk)
                case "room" if ballast:
                    make_room(ballast)
                    ballast = None
            assert await database.sizes() == expected
        reader.close()
        assert database.left_in_log() == 0
        if ballast:
            make_room(ballast)
        await until(database.clear)
        await until(partial(database.add, 100_000))
