"""The room of a SQLite database on a disk that may be full: what is in its log can always be moved into the database.

SQLite appends what is committed to a log, moves it into the database every 1000 pages, and begins the log anew. Where
the database must grow for that, and a full disk has no room, the log is never emptied, and has no room for more either.
Therefore the file system sets blocks aside beyond the ends of both files (fallocate(2)), which nobody else can take:
for the log as much as it needs when nobody reads it for long, and for the database what a commit adds to it, *before*
the commit. A commit for which there is no room fails, and leaves nothing behind that keeps the next one waiting.
"""

import asyncio
import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.blocks import set_aside
from services.common.db.one_trip import OneTripConnection
from services.common.errors import ServiceError
from services.common.room import is_out_of_room

LOG_BYTES: Final = 4 << 20
"""What a log has at any time, and keeps when it was longer: 1000 pages, and what one transaction adds to them."""
SPARE_BYTES: Final = 8 << 20
"""What a database may grow by on a full disk: at least a quarter of it."""
_UNCERTAIN_BYTES: Final = 64 * 1024  # ext4 counts blocks that say where the others are, too
_STAT_BLOCK: Final = 512
_EVERY_SECONDS: Final = 2.0


class RoomyConnection(OneTripConnection):
    """A connection that writes, and commits only what there is room for in the database itself."""

    def __init__(self, path: str, **options: Any) -> None:  # noqa: ANN401 - sqlite3's own
        """`options` are sqlite3.connect's."""
        super().__init__(lambda: self._open(path, **options), iter_chunk_size=64)
        self._database, self._log = Blocks(Path(path)), Blocks(Path(f"{path}-wal"))
        self._directory = Path(path).parent
        self._changes = self._length = 0

    async def commit(self) -> None:
        """See aiosqlite. Raises OperationalError (SQLITE_FULL) when the database cannot grow by the transaction."""
        await self.run(self._commit)

    async def rollback(self) -> None:
        """See aiosqlite."""
        await self.run(self._roll_back)

    def keep_room(self, connection: sqlite3.Connection) -> None:
        """Set aside what is missing, and give back what a slow reader has made the log grow by.

        On a full disk this also empties the log: SQLite does so after a commit only, for which there may be no room.
        """
        is_long = self._log.length > LOG_BYTES
        if is_long or shutil.disk_usage(self._directory).free < LOG_BYTES:
            _checkpoint(connection, "TRUNCATE" if is_long else "PASSIVE")
        self._length = _length(connection)
        self._set_aside()

    def _open(self, path: str, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 - sqlite3's own
        connection = _connect(path, **options)
        self._length = _length(connection)
        return connection

    def _commit(self, connection: sqlite3.Connection) -> None:
        if connection.total_changes == self._changes:
            connection.commit()
            return
        length = _length(connection)
        if length > self._length and not self._database.ensure(length):
            raise _out_of_room()
        connection.commit()
        self._changes, self._length = connection.total_changes, length
        self._set_aside()  # again: when SQLite has emptied the log, it cuts off what is beyond the database's end

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        connection.rollback()
        self._changes = connection.total_changes

    def _set_aside(self) -> None:
        self._log.ensure(LOG_BYTES)  # first: without a log nothing can be deleted either
        self._database.ensure(self._length, SPARE_BYTES)


class Blocks:
    """The blocks that the disk has for a file which SQLite has opened in this process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def length(self) -> int:
        """The file's length in bytes, without what is set aside; 0 when there is none."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def ensure(self, length: int, spare: int = 0) -> bool:
        """Let the file have blocks for `length` bytes, and up to `spare` more if there is room for them.

        Returns False when the disk has no room for `length`. True where the file system cannot set blocks aside, and
        when there is no file: whoever closes a database last removes its log.
        """
        try:
            if self._has(length + spare // 2):
                return True
            parts = (spare, spare // 2, spare // 4) if spare else ()
            return any(self._set_aside(length + part) for part in parts) or self._has(length) or self._set_aside(length)
        except OSError:
            return True

    def _has(self, length: int) -> bool:
        return self._path.stat().st_blocks * _STAT_BLOCK >= length + _UNCERTAIN_BYTES

    def _set_aside(self, length: int) -> bool:
        """Return False when there is no room. Raises OSError when nothing can be set aside."""
        try:
            set_aside(self._descriptor(), length + _UNCERTAIN_BYTES)
        except OSError as error:
            if is_out_of_room(error):
                return False
            raise
        return True

    def _descriptor(self) -> int:
        """Return a descriptor of SQLite's: closing one of our own would let go of SQLite's locks (fcntl(2)).

        Raises OSError when there is none, or no /proc.
        """
        file = self._path.stat()
        for descriptor in (int(each.name) for each in Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.path.samestat(os.fstat(descriptor), file):
                    return descriptor
        raise FileNotFoundError(self._path)


async def keep_room(engine: AsyncEngine) -> None:
    """Call `RoomyConnection.keep_room` every 2 s until cancelled; return at once for PostgreSQL."""
    while engine.dialect.name == "sqlite":
        try:
            async with engine.connect() as connection:
                roomy = cast("RoomyConnection", (await connection.get_raw_connection()).driver_connection)
                await roomy.run(roomy.keep_room)
        except (ServiceError, SQLAlchemyError, sqlite3.Error, OSError):
            pass  # full, or locked by somebody else: whoever writes is told why, and the next time may succeed
        await asyncio.sleep(_EVERY_SECONDS)


def _connect(path: str, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 - sqlite3's own
    """Connect, after emptying a long log that a killed process has left.

    A log that has filled the disk would leave no room for its index (`-shm`), which begins anew with the first who
    connects. Who has the database alone needs none.
    """
    if Blocks(Path(f"{path}-wal")).length > LOG_BYTES:
        with (
            contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as alone,
            contextlib.suppress(sqlite3.Error),  # another process has it too
        ):
            alone.execute("PRAGMA locking_mode = EXCLUSIVE")
            alone.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    return connection


def _checkpoint(connection: sqlite3.Connection, mode: str) -> None:
    """Move what is in the log into the database, as far as nobody reads it, without waiting for anybody."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")


def _length(connection: sqlite3.Connection) -> int:
    """Return how many bytes the database has, with what the transaction adds and what is in the log."""
    (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages) * int(size)


def _out_of_room() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("the disk has no room for the database to grow")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error
