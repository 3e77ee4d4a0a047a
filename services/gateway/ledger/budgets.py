"""The books of budgets: what requests to models may need is reserved before they are sent, and settled when they end.

All budgets of a request are locked in one order, looked at, and written at once: either all of them have it, or none.
Everything here works inside the caller's transaction, under the lock of the job's row: nothing can be reserved for an
attempt that has ended, so nothing stays reserved.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.gateway.ledger.attempt_ids import check_of_attempt
from services.gateway.ledger.timeline import tell
from services.gateway.schema.budgets import budget_use, budgets, reservations
from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import IS_RUNNING, jobs
from services.gateway.schema.sql import insert_if_absent
from services.gateway.values.budgets import BudgetPeriod, BudgetScope, BudgetUse
from services.gateway.values.facts import BudgetRefused
from services.lifecycle.ledger import Lease, LeaseLost
from services.lifecycle.model.budgets import (
    EXCEEDED,
    GRANTED,
    BudgetLimits,
    Granting,
    ModelNeed,
    Settlement,
    Spending,
    nanodollars,
)
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.value import load

OWN: Final = ""
"""Stands for the id of a job's own budget, in its policy."""
SHARES: Final = (50, 80, 100)
"""The shares of a budget, in percent, that are told when they are spent."""
_WAIT_SECONDS: Final = 1.0
"""When to ask again for what may fit once requests that are under way have ended."""

Key = tuple[str, str, str]
"""Budget, subject and period of a row of budget_use."""

_KEY: Final = (budget_use.c.budget_id, budget_use.c.subject_id, budget_use.c.period)
_THESE: Final = tuple_(*_KEY).in_(bindparam("these_keys", expanding=True))
_LOCKED_USES: Final = select(budget_use).where(_THESE).order_by(*_KEY).with_for_update()
_CHANGED: Final = (
    "spent_nanodollars",
    "spent_tokens",
    "spent_requests",
    "reserved_nanodollars",
    "reserved_tokens",
    "reserved_requests",
    "requests_of_unknown_cost",
    "told_percent",
)
_CHANGE: Final = (
    update(budget_use)
    .where(*(column == bindparam(f"this_{column.name}") for column in _KEY))
    .values({name: bindparam(f"new_{name}") for name in _CHANGED})
)
_RESERVED: Final = and_(
    reservations.c.execution_id == bindparam("of_execution"), reservations.c.ask_id == bindparam("of_ask")
)
# Not FOR UPDATE: rows that refer to the job, such as its stages, are written meanwhile.
_HELD: Final = (
    select(NOW.label("time"), exists().where(_RESERVED).label("is_reserved"))
    .where(jobs.c.job_id == bindparam("of_job"), jobs.c.fence == bindparam("of_fence"), IS_RUNNING)
    .with_for_update(of=jobs, key_share=True)
)
_OPEN: Final = and_(reservations.c.job_id == bindparam("this_job"), ~reservations.c.is_settled)
HAS_RESERVATIONS: Final = exists().where(reservations.c.job_id == bindparam("this_job")).label("reservations")


@dataclass(frozen=True, slots=True)
class _Bound:
    """A budget that binds a request: the row where its use is counted, its limits, and how people know it."""

    key: Key
    limits: BudgetLimits
    scope: BudgetScope
    words: str
    job_id: str = ""


@dataclass(slots=True)
class _Use:
    """A locked row of budget_use."""

    key: Key
    spent: Spending
    reserved: Spending
    unknown: int
    told: int

    @classmethod
    def of(cls, row: Row[Any]) -> "_Use":
        """Read a row."""
        view = use_view(row)
        key = (row.budget_id, row.subject_id, row.period)
        return cls(key, view.spent, view.reserved, view.requests_of_unknown_cost, row.told_percent)

    def to_columns(self) -> dict[str, Any]:
        """Return the parameters of _CHANGE."""
        values = (*self.spent.amounts, *self.reserved.amounts, self.unknown, self.told)
        new = {f"new_{name}": value for name, value in zip(_CHANGED, values, strict=True)}
        return new | {f"this_{column.name}": value for column, value in zip(_KEY, self.key, strict=True)}


def use_view(row: Row[Any]) -> BudgetUse:
    """Read a row of budget_use, as people see it."""
    return _use_of(dict(row._mapping), spender=row.subject_id, period=row.period)


def _use_of(amounts: Mapping[str, Any], *, spender: str, period: str = "") -> BudgetUse:
    spent, reserved = (
        Spending(**{name: int(amounts[f"{what}_{name}"]) for name in ("nanodollars", "tokens", "requests")})
        for what in ("spent", "reserved")
    )
    unknown = int(amounts["requests_of_unknown_cost"])
    return BudgetUse(spender=spender, period=period, spent=spent, reserved=reserved, requests_of_unknown_cost=unknown)


async def own_uses(connection: AsyncConnection, job_ids: Sequence[str]) -> Mapping[str, BudgetUse]:
    """Return what jobs have spent of their own budgets, by job."""
    query = select(budget_use).where(budget_use.c.budget_id == OWN, budget_use.c.subject_id.in_(job_ids))
    rows = (await connection.execute(query)).all() if job_ids else ()
    return {row.subject_id: use_view(row) for row in rows}


async def uses_by_budget(connection: AsyncConnection) -> dict[str, BudgetUse]:
    """Return what is spent of each budget of the catalogue in its present period, by all spenders together."""
    time = (await connection.execute(select(NOW))).scalar_one()
    amounts = [column for column in budget_use.c if isinstance(column.type, BigInteger)]
    present = or_(
        *(and_(budgets.c.period == period, budget_use.c.period == period.of(time)) for period in BudgetPeriod)
    )
    query = (
        select(budgets.c.budget_id, *(func.coalesce(func.sum(each), 0).label(each.name) for each in amounts))
        .join_from(budgets, budget_use, and_(budget_use.c.budget_id == budgets.c.budget_id, present), isouter=True)
        .where(budgets.c.delete_time.is_(None))
        .group_by(budgets.c.budget_id)
    )
    rows = (await connection.execute(query)).mappings()
    return {row["budget_id"]: _use_of(dict(row), spender="") for row in rows}


async def tell_again(connection: AsyncConnection, budget_id: str, subject_id: str = "") -> None:
    """Forget which shares of a budget people were told of, now that it has other limits; of one spender, or of all."""
    told = update(budget_use).where(budget_use.c.budget_id == budget_id, budget_use.c.told_percent > 0)
    of_spender = told.where(budget_use.c.subject_id == subject_id) if subject_id else told
    await connection.execute(of_spender.values(told_percent=0))


def has_budgets(spec: JobSpec) -> ColumnElement[bool]:
    """Return the condition that something bounds what a job's agent may spend: then it asks before each request."""
    return literal(not spec.policy.budget.is_open) | exists().where(*_of_project(spec))


async def reserve(connection: AsyncConnection, lease: Lease, need: ModelNeed) -> Granting:
    """Reserve what a request may need, once for each ask; see Ledger.reserve. Raises LeaseLost."""
    held = await _hold(connection, lease, need.execution_id, need.ask_id)
    if held.is_reserved:
        return GRANTED
    bounds = await _bounds(connection, lease.spec, need.execution_id, held.time)
    uses = await _locked_uses(connection, bounds)
    for bound in bounds:
        refused = _refusal(bound, uses[bound.key], need)
        if refused is not None:
            await _note_refusal(connection, lease, bound, uses[bound.key], refused)
            return refused
    wanted = need.spending
    for use in uses.values():
        use.reserved += wanted
    await _write(connection, uses.values())
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
    is_last = any(_lacks(bound.limits, _taken(uses[bound.key]) + wanted) for bound in bounds)
    return Granting(is_granted=True, is_last=is_last)


async def settle(connection: AsyncConnection, lease: Lease, use: Settlement) -> None:
    """Count what a request has used in place of what was reserved for it; see Ledger.settle. Raises LeaseLost."""
    held = await _hold(connection, lease, use.execution_id, use.ask_id)
    if not held.is_reserved:
        return
    this = {"of_execution": use.execution_id, "of_ask": use.ask_id}
    ours = (_RESERVED, reservations.c.job_id == lease.job_id, ~reservations.c.is_settled)
    row = (await connection.execute(select(reservations).where(*ours), this)).first()
    if row is not None:
        await _settle(connection, lease.spec, lease.attempt, [(row, use)])


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


async def _hold(connection: AsyncConnection, lease: Lease, execution_id: str, ask_id: str) -> Row[datetime, bool]:
    """Lock the job's row, and say whether the ask has its reservation. Raises LeaseLost, Invalid."""
    check_of_attempt(lease, execution_id)
    this = {"of_job": lease.job_id, "of_fence": lease.fence, "of_execution": execution_id, "of_ask": ask_id}
    held = (await connection.execute(_HELD, this)).first()
    if held is None:
        raise LeaseLost
    return held


def _of_project(spec: JobSpec) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of the budgets that bind a job's agent, besides its own."""
    columns = budgets.c
    yield columns.project_id == spec.project_id
    yield columns.delete_time.is_(None)
    yield columns.worker_id.is_(None) | (columns.worker_id == spec.worker_id)
    if not spec.worker_id:
        yield columns.scope != BudgetScope.WORKER


async def _bounds(connection: AsyncConnection, spec: JobSpec, execution_id: str, time: datetime) -> list[_Bound]:
    """Return the budgets that bind a request now, in the order in which their rows are locked."""
    bounds = []
    if not spec.policy.budget.is_open:
        key = (OWN, spec.job_id, "")
        bounds.append(_Bound(key, spec.policy.budget, BudgetScope.JOB, "the job's budget", spec.job_id))
    subjects = {
        BudgetScope.EXECUTION: (execution_id, spec.job_id),
        BudgetScope.JOB: (spec.job_id, spec.job_id),
        BudgetScope.WORKER: (spec.worker_id, ""),
        BudgetScope.PROJECT: (spec.project_id, ""),
    }
    columns = (budgets.c.budget_id, budgets.c.scope, budgets.c.period, budgets.c.limits)
    for row in (await connection.execute(select(*columns).where(*_of_project(spec)))).all():
        subject_id, job_id = subjects[row.scope]
        key = (row.budget_id, subject_id, BudgetPeriod(row.period).of(time))
        bounds.append(_Bound(key, row.limits, row.scope, f"budget {row.budget_id}", job_id))
    return sorted(bounds, key=lambda bound: bound.key)


async def _locked_uses(connection: AsyncConnection, bounds: Sequence[_Bound]) -> dict[Key, _Use]:
    """Lock the rows of budgets in their order, and make those that are not there yet."""
    keys = [bound.key for bound in bounds]
    uses = await _lock(connection, keys)
    if len(uses) == len(keys):
        return uses
    for bound in bounds:
        if bound.key not in uses:
            budget_id, subject_id, period = bound.key
            row = {"budget_id": budget_id, "subject_id": subject_id, "period": period, "job_id": bound.job_id}
            await insert_if_absent(connection, budget_use, row)
    return await _lock(connection, keys)


async def _lock(connection: AsyncConnection, keys: Sequence[Key]) -> dict[Key, _Use]:
    rows = (await connection.execute(_LOCKED_USES, {"these_keys": keys})).all() if keys else ()
    return {use.key: use for use in map(_Use.of, rows)}


async def _write(connection: AsyncConnection, uses: Iterable[_Use]) -> None:
    rows = [use.to_columns() for use in uses]
    if rows:
        await connection.execute(_CHANGE, rows)


def _taken(use: _Use) -> Spending:
    return use.spent + use.reserved


def _lacks(limits: BudgetLimits, spending: Spending) -> bool:
    """True when a limit is less than some spending."""
    return any(most is not None and most < value for most, value in zip(limits.amounts, spending.amounts, strict=True))


def _refusal(bound: _Bound, use: _Use, need: ModelNeed) -> Granting | None:
    """Return why a budget does not let a request through; None when it does.

    What would fit without what is only reserved may fit later: requests use less than they might.
    """
    limits, wanted = bound.limits, need.spending
    if need.cost_usd is None and limits.cost_usd is not None and not limits.allow_unknown_cost:
        text = (
            f"{bound.words} limits dollars, and no price is known of the model {need.model!r}, served as it is"
            " asked: ask another, or let it be asked all the same by `unknown-cost` (`--budget 2.50,unknown-cost`)"
        )
        return Granting(is_granted=False, reason=EXCEEDED, message=text)
    if _lacks(limits, use.spent + wanted):
        text = f"{bound.words} has too little left: {_in_words(limits, use.spent)}; the request may need"
        needed = _in_words(limits, wanted, with_limits=False)
        return Granting(is_granted=False, reason=EXCEEDED, message=f"{text} {needed}")
    if _lacks(limits, _taken(use) + wanted):
        text = f"what is left of {bound.words} is reserved for requests that have not ended"
        return Granting(is_granted=False, message=text, retry_seconds=_WAIT_SECONDS)
    return None


def _in_words(limits: BudgetLimits, spent: Spending, *, with_limits: bool = True) -> str:
    """Say how much is spent of each limit that is set."""
    parts = []
    if limits.cost_usd is not None:
        parts.append(f"${spent.cost_usd:.2f}" + f" of ${limits.cost_usd:.2f}" * with_limits)
    for name in ("tokens", "requests"):
        most = getattr(limits, name)
        if most is not None:
            parts.append(f"{getattr(spent, name):,}" + f" of {most:,}" * with_limits + f" {name}")
    return ", ".join(parts)


async def _note_refusal(connection: AsyncConnection, lease: Lease, bound: _Bound, use: _Use, refused: Granting) -> None:
    """Tell that a budget is at its end, once, and count the refusal."""
    if refused.reason != EXCEEDED:
        return
    publish_on_commit(connection, BudgetRefused(bound.scope))
    if use.told < SHARES[-1]:
        use.told = SHARES[-1]
        await _write(connection, [use])
        await _tell(connection, lease.job_id, lease.attempt, SHARES[-1], refused.message)


async def _settle(
    connection: AsyncConnection, spec: JobSpec, attempt: int, ended: Sequence[tuple[Row[Any], Settlement]]
) -> None:
    """Settle reservations of one job, whose row is locked. The rows of all their budgets are locked in one order."""
    keys = sorted({_key(key) for row, _ in ended for key in row.keys})
    uses = await _lock(connection, keys)
    for row, used in ended:
        reserved = Spending(nanodollars=row.nanodollars, tokens=row.tokens, requests=row.requests)
        spent, unknown = _spent(row, used)
        for use in (uses[key] for key in map(_key, row.keys) if key in uses):
            use.reserved -= reserved
            use.spent += spent
            use.unknown += unknown
    await _tell_shares(connection, spec, attempt, uses)
    await _write(connection, uses.values())
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


async def _tell_shares(connection: AsyncConnection, spec: JobSpec, attempt: int, uses: Mapping[Key, _Use]) -> None:
    """Tell of each budget that more than a share of it is spent, once for each share and period."""
    ids = [budget_id for budget_id, *_ in uses if budget_id != OWN]
    limits = {OWN: spec.policy.budget}
    if ids:
        query = select(budgets.c.budget_id, budgets.c.limits).where(budgets.c.budget_id.in_(ids))
        limits |= {row.budget_id: row.limits for row in (await connection.execute(query)).all()}
    for key, use in uses.items():
        known = limits.get(key[0])
        if known is None:  # it was deleted
            continue
        told = max((share for share in SHARES if _reaches(known, use.spent, share)), default=0)
        if told > use.told:
            use.told = told
            whose = f"budget {key[0]}" if key[0] else "the job's budget"
            await _tell(connection, spec.job_id, attempt, told, f"{whose}: {_in_words(known, use.spent)} spent")


def _reaches(limits: BudgetLimits, spent: Spending, share: int) -> bool:
    pairs = zip(limits.amounts, spent.amounts, strict=True)
    return any(most is not None and value * 100 >= most * share for most, value in pairs)


async def _tell(connection: AsyncConnection, job_id: str, attempt: int, share: int, text: str) -> None:
    """Tell in the timeline, and those who watch the job, that a share is spent."""
    names = (f"budget-{share}{suffix}" for suffix in chain([""], map("-{}".format, count(2))))
    while not await tell(connection, job_id, attempt, next(names), text):  # another budget's has the name
        pass
    await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(revision=jobs.c.revision + 1))
