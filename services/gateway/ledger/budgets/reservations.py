"""What a driver reserves for its job's requests to models, and what is settled of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, delete, exists, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import microseconds
from services.gateway.ledger import gates
from services.gateway.ledger.attempt_ids import check_of_attempt
from services.gateway.ledger.budgets.bounds import bounds_of, lacks, refusal
from services.gateway.ledger.budgets.shares import note_refusal, tell_shares
from services.gateway.ledger.budgets.uses import Key, lock, lock_all, write
from services.gateway.schema.budgets import reservations
from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import IS_RUNNING, jobs
from services.lifecycle.ledger import Lease, LeaseLost
from services.lifecycle.model.budgets import GRANTED, GateState, Granting, ModelNeed, Settlement, Spending, nanodollars
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.value import load

_RESERVED: Final = and_(
    reservations.c.execution_id == bindparam("of_execution"), reservations.c.ask_id == bindparam("of_ask")
)
# Not FOR UPDATE: rows that refer to the job, such as its stages, are written meanwhile.
_HELD: Final = (
    select(
        NOW.label("time"),
        jobs.c.cell_id,
        exists().where(_RESERVED).label("is_reserved"),
        gates.HAS_GATES.label("has_gates"),
        gates.IS_TRIAL.label("is_trial"),
    )
    .where(jobs.c.job_id == bindparam("of_job"), jobs.c.fence == bindparam("of_fence"), IS_RUNNING)
    .with_for_update(of=jobs, key_share=True)
)
_OPEN: Final = and_(reservations.c.job_id == bindparam("this_job"), ~reservations.c.is_settled)
HAS_RESERVATIONS: Final = exists().where(reservations.c.job_id == bindparam("this_job")).label("reservations")


async def reserve(connection: AsyncConnection, lease: Lease, need: ModelNeed) -> Granting:
    """Reserve what a request may need, once for each ask; see Ledger.reserve. Raises LeaseLost."""
    held = await _hold(connection, lease, need.execution_id, need.ask_id, need.ways)
    if held.is_reserved:
        return GRANTED
    if not need.is_reserved:
        return await _passage(connection, lease, held, need)
    bounds = await bounds_of(connection, lease.spec, need.execution_id, held.time)
    uses = await lock_all(connection, {bound.key: bound.job_id for bound in bounds})
    for bound in bounds:
        refused = refusal(bound, uses[bound.key], need)
        if refused is not None:
            await note_refusal(connection, lease, bound, uses[bound.key], refused)
            return refused
    passing = await _passage(connection, lease, held, need)
    if not passing.is_granted:
        return passing
    wanted = need.spending
    for use in uses.values():
        use.reserved += wanted
    await write(connection, uses.values())
    await connection.execute(
        insert(reservations).values(
            execution_id=need.execution_id,
            ask_id=need.ask_id,
            job_id=lease.job_id,
            fence=lease.fence,
            keys=tuple(bound.key for bound in bounds),
            nanodollars=wanted.nanodollars,
            tokens=wanted.tokens,
            requests=wanted.requests,
            is_cost_known=need.cost_usd is not None,
        )
    )
    is_last = any(lacks(bound.limits, uses[bound.key].taken + wanted) for bound in bounds)
    return replace(passing, is_last=is_last)


async def _passage(connection: AsyncConnection, lease: Lease, held: Row[Any], need: ModelNeed) -> Granting:
    """Return whether a request may pass the gates of one of its ways."""
    if not held.has_gates:
        return GRANTED
    passage = await gates.passage(connection, lease, held.cell_id, need, microseconds(held.time))
    if passage.wait_seconds:
        names = ", ".join(dict.fromkeys(state.provider for state in passage.closed))
        text = f"model provider {names} wants to be left alone, as all that ask it were told"
        return Granting(is_granted=False, message=text, retry_seconds=passage.wait_seconds, closed=passage.closed)
    return Granting(is_granted=True, closed=passage.closed, is_turn=passage.is_turn)


async def settle(connection: AsyncConnection, lease: Lease, use: Settlement, *, is_far: bool = False) -> None:
    """Count what a request has used in place of what was reserved for it; see Ledger.settle. Raises LeaseLost.

    `is_far`: by the word of a coordinator.
    """
    held = await _hold(connection, lease, use.execution_id, use.ask_id)
    if held.is_reserved:
        this = {"of_execution": use.execution_id, "of_ask": use.ask_id}
        ours = (_RESERVED, reservations.c.job_id == lease.job_id, ~reservations.c.is_settled)
        row = (await connection.execute(select(reservations).where(*ours), this)).first()
        if row is not None:
            await _settle(connection, lease.spec, lease.attempt, [(row, use)])
    if held.is_trial or use.closed:  # after the budgets: `reserve` locks these rows after those, too
        await gates.learn(connection, lease, held.cell_id, use, microseconds(held.time), is_far=is_far)


async def close(connection: AsyncConnection, job_id: str) -> None:
    """Settle what is still reserved for a job's attempt at its worst case: nobody knows how those requests ended.

    The job's row is locked, and its attempt is over, or waits for a person.
    """
    rows = (await connection.execute(select(reservations).where(_OPEN), {"this_job": job_id})).all()
    if not rows:
        return
    of_job = select(jobs.c.definition, jobs.c.attempt).where(jobs.c.job_id == job_id)
    job = (await connection.execute(of_job)).one()
    worst = [(row, Settlement(execution_id=row.execution_id, ask_id=row.ask_id)) for row in rows]
    await _settle(connection, load(JobSpec, job.definition), job.attempt, worst)


async def forget(connection: AsyncConnection, job_id: str) -> None:
    """Close a job's attempt that is over, and forget which of its requests were let through: it asks no more."""
    await close(connection, job_id)
    await connection.execute(delete(reservations).where(reservations.c.job_id == job_id))


async def _hold(
    connection: AsyncConnection, lease: Lease, execution_id: str, ask_id: str, ways: Sequence[GateState] = ()
) -> Row[Any]:
    """Lock the job's row, and say what is known of the ask and of its ways. Raises LeaseLost, Invalid."""
    check_of_attempt(lease, execution_id)
    this: dict[str, Any] = {"of_job": lease.job_id, "of_fence": lease.fence, "of_execution": execution_id}
    this |= {"of_ask": ask_id, "of_providers": [way.provider for way in ways]}
    held = (await connection.execute(_HELD, this)).first()
    if held is None:
        raise LeaseLost
    return held


async def _settle(
    connection: AsyncConnection, spec: JobSpec, attempt: int, ended: Sequence[tuple[Row[Any], Settlement]]
) -> None:
    """Settle reservations of one job, whose row is locked. The rows of all their budgets are locked in one order."""
    keys = sorted({_key(key) for row, _ in ended for key in row.keys})
    uses = await lock(connection, keys)
    for row, used in ended:
        reserved = Spending(nanodollars=row.nanodollars, tokens=row.tokens, requests=row.requests)
        spent, unknown = _spent(row, used)
        for use in (uses[key] for key in map(_key, row.keys) if key in uses):
            use.reserved -= reserved
            use.spent += spent
            use.unknown += unknown
    await tell_shares(connection, spec, attempt, uses)
    await write(connection, uses.values())
    done = tuple_(reservations.c.execution_id, reservations.c.ask_id).in_(
        [(row.execution_id, row.ask_id) for row, _ in ended]
    )
    await connection.execute(update(reservations).where(done).values(is_settled=True))


def _key(parts: Sequence[str]) -> Key:
    budget_id, subject_id, period = parts
    return budget_id, subject_id, period


def _spent(row: Row[Any], used: Settlement) -> tuple[Spending, int]:
    """Return what a request counts as, and 1 where its cost was never known."""
    if used.is_released:
        return Spending(), 0
    tokens = row.tokens if used.tokens is None else used.tokens
    if used.cost_usd is not None:
        return Spending(nanodollars=nanodollars(used.cost_usd), tokens=tokens, requests=1), 0
    return Spending(nanodollars=row.nanodollars, tokens=tokens, requests=1), int(not row.is_cost_known)
