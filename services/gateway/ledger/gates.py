"""The gates of models: who wants to be left alone is, by all executions of all cells.

A gate is what a provider limits together: a model, for one of its keys. An execution that is told to wait closes it
(`learn`), and no request passes until then (`passage`). Then one request tries it. When that is answered, or has not
failed for a while, the others follow, one after the other and ever faster, in turns between projects. A gate that many
have passed is forgotten. Everything here works inside the caller's transaction, after the rows of budgets are locked.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.catalog import providers
from services.gateway.schema.gates import model_gate_turns, model_gates
from services.gateway.schema.sql import insert_if_absent
from services.lifecycle.ledger import Lease
from services.lifecycle.model.budgets import GateState, ModelNeed, Settlement

LONGEST_SECONDS: Final = 31 * 86400.0
"""The longest time for which a gate is closed."""

_SECOND: Final = 1_000_000
_TRIAL: Final = 15 * _SECOND
"""After which a request that has not failed counts as answered: providers refuse at once."""
_FIRST_PAUSE: Final = _SECOND // 2
_LAST_PAUSE: Final = _SECOND // 50
_FASTER: Final = 0.8
_WAITS: Final = 3 * _SECOND
"""For how long a project counts as waiting after it has looked."""
_LOOK_SECONDS: Final = (0.2, 1.0)
"""How often to look at least and at most."""
_FORGOTTEN: Final = 86400 * _SECOND

_TURN: Final = (model_gate_turns.c.scope, model_gate_turns.c.provider, model_gate_turns.c.key, model_gate_turns.c.model)
_GATE: Final = (model_gates.c.scope, model_gates.c.provider, model_gates.c.key, model_gates.c.model)
HAS_GATES: Final = exists().where(model_gates.c.provider.in_(bindparam("of_providers", expanding=True)))
"""True when a gate is known of one of these providers."""
IS_TRIAL: Final = exists().where(
    model_gates.c.trial_execution_id == bindparam("of_execution"), model_gates.c.trial_ask_id == bindparam("of_ask")
)
"""True when a request tries a gate."""

Way = tuple[str, int, str]
"""Provider, key and model."""

Row = tuple[str, str, int, str]
"""Scope, provider, key and model: the key of a row of model_gates."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Whether a request may be sent now: by one of its ways that is not in `closed`, or not for `wait_seconds`."""

    wait_seconds: float = 0.0
    closed: tuple[GateState, ...] = ()
    is_turn: bool = False


@dataclass(frozen=True, slots=True)
class _Gate:
    """A locked row of model_gates. Times are in microseconds."""

    scope: str
    provider: str
    key: int
    model: str
    open_time: int
    is_proven: bool
    next_time: int
    pause: int
    trial_execution_id: str
    trial_ask_id: str

    @property
    def way(self) -> Way:
        return self.provider, self.key, self.model

    @property
    def row(self) -> Row:
        return self.scope, *self.way


async def passage(connection: AsyncConnection, lease: Lease, cell_id: str, need: ModelNeed, time: int) -> Passage:
    """Return whether a request may pass the gates of one of its ways, and let it if so. `time` is the database's."""
    ways = [(way.provider, way.key, way.model) for way in need.ways]
    gates = await _locked(connection, _scopes(lease, cell_id), ways)
    closed: list[GateState] = []
    for number, way in enumerate(ways):
        of_way = [gate for gate in gates if gate.way == way]
        waits = [await _wait(connection, gate, lease.spec.project_id, time) for gate in of_way]
        if not any(waits):
            for gate in of_way:
                await _pass(connection, gate, lease.spec.project_id, need, time)
            later = [_state(gate, time) for gate in gates if gate.way in ways[number + 1 :] and gate.open_time > time]
            return Passage(closed=(*closed, *later), is_turn=bool(of_way))
        provider, key, model = way
        closed.append(GateState(provider=provider, key=key, model=model, seconds=max(waits)))
    return Passage(min(state.seconds for state in closed), tuple(closed))


async def learn(
    connection: AsyncConnection, lease: Lease, cell_id: str, use: Settlement, time: int, *, is_far: bool
) -> None:
    """Take what became of a request: of the gate that it has tried, and of those that it has found closed.

    With an answer, the others may follow. `time` is the database's. `is_far`: by the word of a coordinator.
    """
    closed = await _closed(connection, lease, cell_id, use.closed, is_far=is_far)
    for row in sorted(closed):
        new = {**_key(row), "open_time": 0, "is_proven": False, "next_time": 0, "pause": _FIRST_PAUSE}
        await insert_if_absent(connection, model_gates, new | {"trial_execution_id": "", "trial_ask_id": ""})
    of_ask = and_(model_gates.c.trial_execution_id == use.execution_id, model_gates.c.trial_ask_id == use.ask_id)
    await _lock(connection, or_(of_ask, tuple_(*_GATE).in_(list(closed))))
    is_answered = not use.is_released and use.tokens is not None
    values: dict[str, Any] = {"trial_execution_id": "", "trial_ask_id": "", "next_time": 0, "is_proven": is_answered}
    await connection.execute(update(model_gates).where(of_ask).values(values))
    for row, seconds in closed.items():
        until = time + round(min(seconds, LONGEST_SECONDS) * _SECOND)
        this = update(model_gates).where(*_is(_GATE, row), model_gates.c.open_time < until)
        values = {"open_time": until, "is_proven": False, "next_time": 0, "pause": _FIRST_PAUSE}
        await connection.execute(this.values(values | {"trial_execution_id": "", "trial_ask_id": ""}))
    if closed:
        await _forget(connection, and_(model_gates.c.open_time < time - _FORGOTTEN))


async def _closed(
    connection: AsyncConnection, lease: Lease, cell_id: str, found: Sequence[GateState], *, is_far: bool
) -> dict[Row, float]:
    """Return for how many seconds gates are to be closed that were found so: those that are not open again."""
    found = [state for state in found if state.seconds > 0]
    if not found:
        return {}
    query = select(providers.c.provider_id, providers.c.project_id).where(
        providers.c.provider_id.in_({state.provider for state in found}), providers.c.delete_time.is_(None)
    )
    projects: Mapping[str, str] = {row.provider_id: row.project_id for row in await connection.execute(query)}
    closed: dict[Row, float] = {}
    for state in found:
        scope = _scope(lease, cell_id, state.provider, projects, is_far=is_far)
        row = (scope, state.provider, state.key, state.model)
        closed[row] = max(state.seconds, closed.get(row, 0.0))
    return closed


async def open_gates(connection: AsyncConnection, provider_id: str) -> None:
    """Open all gates of a provider, which is asked elsewhere or with other keys from now on, or not at all."""
    await _open(connection, model_gates.c.provider == provider_id)


async def open_own_gates(connection: AsyncConnection, cell_id: str) -> None:
    """Open the gates of the providers that only a cell's machine knows, which may have been given other keys."""
    await _open(connection, model_gates.c.scope == _of_cell(cell_id))


def _scopes(lease: Lease, cell_id: str) -> tuple[str, str, str]:
    return "", f"project:{lease.spec.project_id}", _of_cell(cell_id)


def _of_cell(cell_id: str) -> str:
    return f"cell:{cell_id}"


def _scope(lease: Lease, cell_id: str, provider: str, projects: Mapping[str, str], *, is_far: bool) -> str:
    """Return for whose jobs a provider's gate is closed.

    A coordinator's word is for its own project, and what only a machine knows of a provider is for that machine.
    """
    shared, of_project, of_cell = _scopes(lease, cell_id)
    if provider not in projects:
        return of_cell
    return of_project if is_far or projects[provider] else shared


async def _locked(connection: AsyncConnection, scopes: Collection[str], ways: Collection[Way]) -> list[_Gate]:
    columns = tuple_(model_gates.c.provider, model_gates.c.key, model_gates.c.model)
    query = select(model_gates).where(model_gates.c.scope.in_(scopes), columns.in_(ways))
    rows = (await connection.execute(query.order_by(*_GATE).with_for_update())).mappings()
    return [_Gate(**row) for row in rows]


async def _wait(connection: AsyncConnection, gate: _Gate, project_id: str, time: int) -> float:
    """Return for how many seconds a gate is closed to a project; 0 when it is not."""
    if gate.open_time > time:
        return (gate.open_time - time) / _SECOND
    least, most = _LOOK_SECONDS
    soon = least
    if gate.next_time > time:
        soon = min(most, max(least, (gate.next_time - time) / _SECOND)) if not gate.is_proven else least
    elif not await _is_behind(connection, gate, project_id, time):
        return 0.0
    await _note_waiting(connection, gate, project_id, time)
    return soon * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


async def _is_behind(connection: AsyncConnection, gate: _Gate, project_id: str, time: int) -> bool:
    """True when another project waits that has had fewer turns."""
    turns = await _turns(connection, gate)
    mine = turns[project_id].passed if project_id in turns else _least(turns.values())
    return any(other.waits_until > time and other.passed < mine for other in turns.values())


async def _turns(connection: AsyncConnection, gate: _Gate) -> dict[str, Any]:
    rows = (await connection.execute(select(model_gate_turns).where(*_is(_TURN, gate.row)))).all()
    return {row.project_id: row for row in rows}


def _least(turns: Collection[Any]) -> int:
    return min((turn.passed for turn in turns), default=0)


async def _note_waiting(connection: AsyncConnection, gate: _Gate, project_id: str, time: int) -> None:
    await _turn(connection, gate, project_id, {"waits_until": time + _WAITS})


async def _pass(connection: AsyncConnection, gate: _Gate, project_id: str, need: ModelNeed, time: int) -> None:
    """Let a request through: to try the gate, or after others have."""
    is_proven = gate.is_proven or bool(gate.trial_ask_id)  # a trial that is over, and has not failed
    pause = round(gate.pause * _FASTER) if is_proven else gate.pause
    if pause < _LAST_PAUSE:
        await _forget(connection, and_(*_is(_GATE, gate.row)))
        return
    trial = ("", "") if is_proven else (need.execution_id, need.ask_id)
    passed = replace(
        gate,
        is_proven=is_proven,
        next_time=time + (pause if is_proven else _TRIAL),
        pause=pause,
        trial_execution_id=trial[0],
        trial_ask_id=trial[1],
    )
    values = {name: getattr(passed, name) for name in ("is_proven", "next_time", "pause")}
    values |= {"trial_execution_id": passed.trial_execution_id, "trial_ask_id": passed.trial_ask_id}
    await connection.execute(update(model_gates).where(*_is(_GATE, gate.row)).values(values))
    await _turn(connection, gate, project_id, {"passed": model_gate_turns.c.passed + 1, "waits_until": 0})


async def _turn(connection: AsyncConnection, gate: _Gate, project_id: str, values: Mapping[str, Any]) -> None:
    """Write a project's row, which begins with as many turns as the others have had at least."""
    this = update(model_gate_turns).where(*_is(_TURN, gate.row), model_gate_turns.c.project_id == project_id)
    if (await connection.execute(this.values(values))).rowcount == 0:
        least = _least((await _turns(connection, gate)).values())
        new = _key(gate.row) | {"project_id": project_id, "passed": least, "waits_until": 0}
        await insert_if_absent(connection, model_gate_turns, new)
        await connection.execute(this.values(values))


async def _lock(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    """Lock rows in the order in which everybody does: nobody waits for who waits for him."""
    await connection.execute(select(model_gates.c.key).where(which).order_by(*_GATE).with_for_update())


async def _open(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    await _lock(connection, which)
    await _forget(connection, which)


async def _forget(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    """Delete gates, but for those that others have locked."""
    rows = (await connection.execute(select(*_GATE).where(which).with_for_update(skip_locked=True))).all()
    for row in rows:
        await connection.execute(delete(model_gate_turns).where(*_is(_TURN, tuple(row))))
        await connection.execute(delete(model_gates).where(*_is(_GATE, tuple(row))))


def _key(row: Row) -> dict[str, Any]:
    return dict(zip(("scope", "provider", "key", "model"), row, strict=True))


def _is(columns: Sequence[Any], values: Sequence[Any]) -> Iterator[ColumnElement[bool]]:
    return (column == value for column, value in zip(columns, values, strict=True))


def _state(gate: _Gate, time: int) -> GateState:
    return GateState(provider=gate.provider, key=gate.key, model=gate.model, seconds=(gate.open_time - time) / _SECOND)
