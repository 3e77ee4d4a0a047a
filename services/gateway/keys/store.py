"""The keys in SQL: which there are, which cells have them, and what is still to be sealed anew."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from sqlalchemy import Column, Row, Text, delete, func, insert, or_, select, text, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number
from services.common.db.vacuum import forget_replaced
from services.common.errors import StartError
from services.gateway.keys.file import KeyFile
from services.gateway.ledger.fleet import is_alive
from services.gateway.schema.cells import cells
from services.gateway.schema.jobs import jobs
from services.gateway.schema.keys import CURRENT, NEXT, OLD, SEALED, sealing_keys
from services.gateway.schema.sealing import KEY_BYTES, KeyRing, SealError, id_of, prefix_of, use_keys
from services.gateway.values.cells import CellKind

_TEST_PLACE: Final = "sealing_keys.test_value"
_TEST_TEXT: Final = "boatyard"
_HANDOVER_PLACE: Final = "sealing_keys.handover"
_LOCK: Final = 0x6B657973  # any number, the same for all
_BATCH: Final = 100
_SECOND: Final = 1_000_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Key:
    """A key without itself. `state` is NEXT, CURRENT or OLD."""

    key_id: str
    state: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class KeysView:
    """The keys, newest first; the cells that a rotation waits for; how many values the current key does not seal."""

    keys: tuple[Key, ...]
    waiting_for: tuple[str, ...]
    values_left: int


async def unlock(engine: AsyncEngine, file: KeyFile, given: Sequence[bytes] = ()) -> KeyRing:
    """Return the ring of an engine's database, which the engine uses from now on.

    The first cell makes the key, or takes the first of those that it is `given`; keys that are of use are kept in
    `file`. Raises StartError when this cell lacks the key that the database is sealed with.
    """
    known = [*file.read(), *given]
    async with engine.begin() as connection:
        await _exclude_others(connection)
        rows = await _rows(connection)
        if not rows:
            key = known[0] if known else os.urandom(KEY_BYTES)
            file.add(key)  # before anything is sealed with it
            await connection.execute(insert(sealing_keys).values(_new_row(key, CURRENT)))
            rows = await _rows(connection)
    ring = KeyRing(known or file.read())
    adopt(ring, file, rows)
    for key in known:
        if any(row.key_id == id_of(key) for row in rows):
            file.add(key)
    use_keys(engine, ring)
    return ring


def adopt(ring: KeyRing, file: KeyFile, rows: Sequence[Row[Any]]) -> None:
    """Take over the keys that were handed over, and seal with the current one. Raises StartError without that."""
    for row in rows:
        if row.handover and row.key_id not in ring.key_ids:
            try:
                key = base64.b64decode(ring.open(row.handover, _HANDOVER_PLACE))
            except SealError:
                continue
            file.add(key)
            ring.add(key)
    current = next(row for row in rows if row.state == CURRENT)
    try:
        ring.open(current.test_value, _TEST_PLACE)
    except SealError as error:
        raise StartError(
            f"the secrets in the database are sealed with the key {current.key_id}, which is not in {file.path}: copy"
            f" the file `keys` from the data directory of a cell that runs on this database, and start this one with"
            f" --keys-file FILE (BOATYARD_GATEWAY_KEYS_FILE)"
        ) from error
    ring.current = current.key_id


class KeyStore:
    """Reads and writes the keys of the database that `ring` is for."""

    def __init__(self, engine: AsyncEngine, ring: KeyRing, file: KeyFile, lease_seconds: float) -> None:
        """A cell that is away is not waited for. `lease_seconds` is for one whose lease is not known."""
        self._engine = engine
        self._ring = ring
        self._file = file
        self._lease_seconds = lease_seconds

    @property
    def current_key_id(self) -> str:
        """The id of the key that this cell seals with."""
        return self._ring.current

    async def view(self) -> KeysView:
        """Return the keys as they are."""
        async with self._engine.begin() as connection:
            return await self._view(connection)

    async def begin_rotation(self) -> KeysView:
        """Make the next key, and hand it over to the cells that have the current one; return the keys.

        Nothing happens while a rotation is under way.
        """
        async with self._engine.begin() as connection:
            await _exclude_others(connection)
            if not any(row.state in {NEXT, OLD} for row in await _rows(connection)):
                key = os.urandom(KEY_BYTES)
                self._file.add(key)
                self._ring.add(key)
                handover = self._ring.seal(base64.b64encode(key).decode(), _HANDOVER_PLACE)
                row = _new_row(key, NEXT) | {"handover": handover}
                await connection.execute(insert(sealing_keys).values(row))
            return await self._view(connection)

    async def keep_up(self, cell_id: str) -> bool:
        """Adopt what other cells did, and say what this one has; return True when all seal with the current key.

        The next key becomes the current one as soon as all cells have it. Raises StartError when this cell slept
        through a rotation, and does not have the key any more.
        """
        async with self._engine.begin() as connection:
            await _exclude_others(connection)
            rows = await _rows(connection)
            adopt(self._ring, self._file, rows)
            await self._report(connection, cell_id)
            following = next((row for row in rows if row.state == NEXT), None)
            if following is not None and not await self._lacking(connection, cells.c.key_ids, following.key_id):
                states = update(sealing_keys)
                await connection.execute(states.where(sealing_keys.c.state == CURRENT).values(state=OLD))
                await connection.execute(states.where(sealing_keys.c.key_id == following.key_id).values(state=CURRENT))
                self._ring.current = following.key_id
                await self._report(connection, cell_id)
            has_next = following is not None and self._ring.current != following.key_id
            lacking = await self._lacking(connection, cells.c.sealing_key_id, self._ring.current)
        return not has_next and not lacking

    async def seal_all(self) -> bool:
        """Seal with the current key all that is not, and forget the keys before it; return True when that is done.

        To be called when all cells seal with it.
        """
        total = 0
        for column in SEALED:
            while count := await self._seal_some(column):
                total += count
        if total:
            await forget_replaced(self._engine, [table.name for table in _small_tables()], [jobs.name])
        async with self._engine.begin() as connection:
            await _exclude_others(connection)
            is_done = not await self._values_left(connection)
            if is_done:
                await connection.execute(delete(sealing_keys).where(sealing_keys.c.state == OLD))
                handed = update(sealing_keys).where(sealing_keys.c.state == CURRENT)
                await connection.execute(handed.values(handover=""))
        log.info("secrets are sealed", values=total, is_done=is_done)
        return is_done

    async def _seal_some(self, column: Column[Any]) -> int:
        """Seal a batch of a column's values anew; return how many."""
        stored, key, place = type_coerce(column, Text), column.table.primary_key.columns[0], str(column)
        async with self._engine.begin() as connection:
            query = select(key, stored.label("stored")).where(self._is_left(column)).limit(_BATCH)
            rows = (await connection.execute(query.with_for_update())).all()
            for row in rows:
                sealed = self._ring.seal(self._ring.open(row.stored, place), place)
                this = update(column.table).where(key == row[0])
                await connection.execute(this.values({column: text(":sealed").bindparams(sealed=sealed)}))
        return len(rows)

    async def _view(self, connection: AsyncConnection) -> KeysView:
        rows = await _rows(connection)
        newest = rows[0].key_id if rows[0].state == NEXT else self._ring.current
        column = cells.c.key_ids if rows[0].state == NEXT else cells.c.sealing_key_id
        return KeysView(
            tuple(Key(row.key_id, row.state, row.create_time) for row in rows),
            tuple(await self._lacking(connection, column, newest)),
            await self._values_left(connection),
        )

    async def _report(self, connection: AsyncConnection, cell_id: str) -> None:
        held = " ".join(sorted(self._ring.key_ids))
        this = update(cells).where(cells.c.cell_id == cell_id)
        changed = or_(cells.c.key_ids != held, cells.c.sealing_key_id != self._ring.current)
        await connection.execute(this.where(changed).values(key_ids=held, sealing_key_id=self._ring.current))

    async def _lacking(self, connection: AsyncConnection, column: Column[str], key_id: str) -> list[str]:
        """Return the living cells with a gateway whose `column` does not have a key."""
        lacking = select(cells.c.cell_id).where(
            is_alive(self._lease_seconds), cells.c.kind == CellKind.GATEWAY, ~column.contains(key_id)
        )
        return list((await connection.execute(lacking.order_by(cells.c.cell_id))).scalars())

    async def _values_left(self, connection: AsyncConnection) -> int:
        counts = [select(func.count()).select_from(column.table).where(self._is_left(column)) for column in SEALED]
        return sum([int((await connection.execute(count)).scalar_one()) for count in counts])

    def _is_left(self, column: Column[Any]) -> Any:  # noqa: ANN401 - a condition
        stored = type_coerce(column, Text)
        return (stored != "") & ~stored.startswith(prefix_of(self._ring.current))


def _small_tables() -> list[Any]:
    return [column.table for column in SEALED if column.table is not jobs]


def _new_row(key: bytes, state: str) -> dict[str, Any]:
    ring = KeyRing([key])
    return {
        "key_id": ring.current,
        "state": state,
        "test_value": ring.seal(_TEST_TEXT, _TEST_PLACE),
        "handover": "",
        "create_time": datetime.now(UTC),
    }


async def _rows(connection: AsyncConnection) -> Sequence[Row[Any]]:
    """Return the keys, the newest first."""
    newest_first = as_number(sealing_keys.c.create_time).desc()
    return (await connection.execute(select(sealing_keys).order_by(newest_first, sealing_keys.c.key_id))).all()


async def _exclude_others(connection: AsyncConnection) -> None:
    """Let one cell at a time change the keys; on SQLite every transaction is alone."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
