"""The records of executions, in SQLite beside their run directories."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from services.agent import usage
from services.common.db.columns import Moment, as_number, from_microseconds, microseconds
from services.common.db.commit_events import publish_on_commit
from services.common.db.fences import fence_table
from services.common.db.paging import Page
from services.execution.model import (
    ACTIVE,
    EndVerification,
    Execution,
    Filter,
    ModelOutage,
    ModelUse,
    Purpose,
    Result,
    State,
    Vitals,
)
from services.sandbox.spec import Network, Tier

metadata = MetaData()
fences = fence_table(metadata)
executions = Table(
    "executions",
    metadata,
    Column("execution_id", String(63), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("job_id", String(63), nullable=False),
    Column("sandbox_tier", String(16), nullable=False),
    Column("network", String(16)),  # NULL: recorded by a version that did not say
    Column("host_uid", BigInteger),  # NULL: the service's own
    Column("leave_out", JSON(none_as_null=True)),  # NULL: nothing
    Column("reserves_model_use", Boolean),  # NULL: False, by a version that knew of none
    Column("state", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("processes_left", Integer),
    Column("create_time", Moment, nullable=False),
    Column("start_time", Moment),
    Column("end_time", Moment),
    Column("last_sequence", BigInteger, nullable=False),
    Column("output_bytes", BigInteger, nullable=False),
    # True when the events were removed; the record stays.
    Column("events_trimmed", Boolean, nullable=False),
    # What a model used and did; NULL for programs, and while it runs.
    Column("tokens", BigInteger),
    Column("cost_usd", Float),
    Column("turns", Integer),
    Column("tool_calls", Integer),
    Column("last_words", Text),
    Column("claimed_tokens", BigInteger),
    Column("claimed_cost_usd", Float),
    Column("usage", JSON(none_as_null=True)),  # by provider, model and day
    # The outage of a model that has ended it; NULL when none has.
    Column("outage_provider", Text),
    Column("outage_until", Moment),
    # How the end was enforced and what was used until then; NULL while it runs.
    Column("end_verified_by", String(16)),
    Column("cpu_seconds", Float),
    Column("memory_peak_bytes", BigInteger),
    Column("read_bytes", BigInteger),
    Column("written_bytes", BigInteger),
    # What the agent's program calls its session; NULL where it names none.
    Column("session_id", String(128)),
)

_SAME_NAMES = (
    *("execution_id", "digest", "job_id", "reason", "message", "exit_code", "signal", "processes_left"),
    *("create_time", "start_time", "end_time", "last_sequence", "output_bytes", "events_trimmed", "host_uid"),
)
_MODEL_USE = ("tokens", "cost_usd", "turns", "tool_calls", "last_words", "claimed_tokens", "claimed_cost_usd")
_VITALS = ("cpu_seconds", "memory_peak_bytes", "read_bytes", "written_bytes")


@dataclass(frozen=True, slots=True)
class Begun:
    """What the executions of a job have had on this machine, and whether an agent was among them."""

    tiers: frozenset[Tier]
    networks: frozenset[Network]
    has_agent: bool


class ExecutionStore:
    """Reads and writes the records of executions. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, execution: Execution) -> None:
        """Record an execution; its id MUST be new."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(executions).values(_to_row(execution)))
            publish_on_commit(connection, execution)

    async def find(self, execution_id: str) -> Execution | None:
        """Return one execution, or None."""
        matches = await self._read(select(executions).where(executions.c.execution_id == execution_id))
        return matches[0] if matches else None

    async def active(self) -> Sequence[Execution]:
        """Return the executions that have not ended, the oldest first."""
        statement = select(executions).where(executions.c.state.in_(ACTIVE))
        return await self._read(statement.order_by(executions.c.create_time))

    async def begun(self, job_id: str) -> Begun:
        """Return what a job's executions have had; without a job, nothing.

        Executions of the version before count as all networks, because theirs is not recorded.
        """
        columns = (executions.c.sandbox_tier, executions.c.network, executions.c.purpose)
        statement = select(*columns).where(executions.c.job_id == job_id)
        async with self._engine.begin() as connection:
            rows = (await connection.execute(statement.distinct())).all() if job_id else ()
        networks = {row.network for row in rows}
        return Begun(
            frozenset(Tier(row.sandbox_tier) for row in rows),
            frozenset(Network) if None in networks else frozenset(map(Network, networks)),
            has_agent=any(row.purpose == Purpose.AGENT for row in rows),
        )

    async def last_session(self, job_id: str) -> str | None:
        """Return the session of a job's last agent that has ended here: empty where it names none, None without one."""
        statement = select(executions.c.session_id).where(
            executions.c.job_id == job_id, executions.c.purpose == Purpose.AGENT, executions.c.end_time.is_not(None)
        )
        newest = statement.order_by(executions.c.create_time.desc(), executions.c.execution_id.desc()).limit(1)
        async with self._engine.begin() as connection:
            row = (await connection.execute(newest)).first() if job_id else None
        return None if row is None else row.session_id or ""

    async def page(self, filters: Filter, page: Page) -> tuple[list[Execution], str]:
        """Return a page of executions, the newest first, and the token of the next page."""
        statement = select(executions)
        if filters.states:
            statement = statement.where(executions.c.state.in_(filters.states))
        if filters.job_id:
            statement = statement.where(executions.c.job_id == filters.job_id)
        key = (as_number(executions.c.create_time), executions.c.execution_id)
        rows = await self._read(page.select(statement, key, descending=True))
        return page.cut(rows, lambda last: (microseconds(last.create_time), last.execution_id))

    async def set_running(self, execution_id: str, start_time_ns: int) -> None:
        """Record that a PENDING execution's program has begun; an execution in a later state stays as it is."""
        statement = update(executions).where(
            executions.c.execution_id == execution_id, executions.c.state == State.PENDING
        )
        async with self._engine.begin() as connection:
            await connection.execute(
                statement.values(state=State.RUNNING, start_time=from_microseconds(start_time_ns // 1000))
            )

    async def untrimmed(self, *, after: Execution | None, count: int) -> list[Execution]:
        """Return up to `count` ended executions that still have their events, in order of their ends, after `after`."""
        statement = select(executions).where(executions.c.end_time.is_not(None), ~executions.c.events_trimmed)
        if after is not None:
            position = tuple_(executions.c.end_time, executions.c.execution_id)
            statement = statement.where(position > tuple_(literal(after.end_time, Moment), literal(after.execution_id)))
        return await self._read(statement.order_by(executions.c.end_time, executions.c.execution_id).limit(count))

    async def set_trimmed(self, execution_id: str) -> None:
        """Record that an execution's events are gone."""
        statement = update(executions).where(executions.c.execution_id == execution_id)
        async with self._engine.begin() as connection:
            await connection.execute(statement.values(events_trimmed=True))

    async def finish(self, ended: Execution) -> None:
        """Record how an execution has ended."""
        statement = update(executions).where(executions.c.execution_id == ended.execution_id)
        async with self._engine.begin() as connection:
            await connection.execute(statement.values(_to_row(ended)))
            publish_on_commit(connection, ended)

    async def _read(self, statement: Select[tuple[object, ...]]) -> list[Execution]:
        async with self._engine.begin() as connection:
            return [_from_row(row) for row in await connection.execute(statement)]


def ended(execution: Execution, result: Result) -> Execution:
    """Return an execution as it is after its end."""
    return replace(
        execution,
        state=result.state,
        reason=result.reason,
        message=result.message,
        exit_code=result.exit_code,
        signal=result.signal,
        processes_left=result.processes_left,
        start_time=None if result.start_time_ns is None else from_microseconds(result.start_time_ns // 1000),
        end_time=from_microseconds(result.end_time_ns // 1000),
        last_sequence=result.last_sequence,
        output_bytes=result.output_bytes,
        model_use=result.model_use,
        end_verified_by=result.end_verified_by,
        vitals=result.vitals,
        model_outage=None
        if result.outage_provider is None
        else ModelOutage(
            result.outage_provider,
            None if result.outage_until_ns is None else from_microseconds(result.outage_until_ns // 1000),
        ),
        session_id=result.session_id,
    )


def _to_row(execution: Execution) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(execution, name) for name in _SAME_NAMES}
    row |= {"purpose": execution.purpose, "sandbox_tier": execution.sandbox_tier, "state": execution.state}
    row["network"] = execution.network
    row |= {name: getattr(execution.model_use, name, None) for name in _MODEL_USE}
    row["usage"] = None if execution.model_use is None else list(map(asdict, execution.model_use.usage)) or None
    row |= {name: getattr(execution.vitals, name, None) for name in _VITALS}
    row["end_verified_by"] = execution.end_verified_by
    row["outage_provider"] = getattr(execution.model_outage, "provider", None)
    row["outage_until"] = getattr(execution.model_outage, "retry_time", None)
    row["session_id"] = execution.session_id or None
    row["leave_out"] = list(execution.leave_out) or None
    row["reserves_model_use"] = execution.reserves_model_use
    return row


def _from_row(row: Row[tuple[object, ...]]) -> Execution:
    fields: dict[str, Any] = {name: getattr(row, name) for name in _SAME_NAMES}
    if row.tokens is not None:
        fields["model_use"] = ModelUse(
            **{name: getattr(row, name) for name in _MODEL_USE}, usage=usage.from_json(row.usage or ())
        )
    if row.cpu_seconds is not None:
        fields["vitals"] = Vitals(memory_bytes=0, processes=0, **{name: getattr(row, name) for name in _VITALS})
    if row.outage_provider is not None:
        fields["model_outage"] = ModelOutage(row.outage_provider, row.outage_until)
    if row.leave_out is not None:
        fields["leave_out"] = tuple(row.leave_out)
    fields["reserves_model_use"] = bool(row.reserves_model_use)
    if row.session_id is not None:
        fields["session_id"] = row.session_id
    if row.network is not None:
        fields["network"] = Network(row.network)
    if row.end_verified_by is not None:
        fields["end_verified_by"] = EndVerification(row.end_verified_by)
    return Execution(
        purpose=Purpose(row.purpose), sandbox_tier=Tier(row.sandbox_tier), state=State(row.state), **fields
    )
