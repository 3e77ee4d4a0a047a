"""Chaos under one daily budget: agents of many jobs ask a model, while what carries them is killed.

However it ends, the budget is never passed, nothing stays reserved, and the books have what the provider has billed: no
less, and no more but for requests that were under way when something was lost, which may have been used up.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psycopg
from boatyard.gateway.v1 import budget_pb2, job_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from tests.kit.chaos.billing import MODEL, BillingProvider, billing
from tests.kit.chaos.checks import Checks, state_of
from tests.kit.chaos.facts import Facts, gather, rows
from tests.kit.chaos.faults import Fault, FaultInjector, FaultRecord
from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.machines import FleetCell, FleetCoordinator
from tests.kit.chaos.run import Plan, Report, inject_faults, remains, survivors, unfinished_jobs
from tests.kit.chaos.submissions import Submission
from tests.kit.chaos.workloads import CAN_BE_LOST, NUMBER, Workload, job_spec
from tests.kit.postgres import OwnPostgres

NEEDED = 4
"""Requests that the agent of each job needs."""
_ATTEMPTS = 10
_LONGEST_ANSWER = 100
_MOST_RESERVED = {"requests": 1, "tokens": 300, "nanodollars": 3_000_000}
"""What is reserved for a request, at most."""
_SHARE = 0.6
"""What the budget has of what all agents need."""
_BUDGET = "all-of-them"
_RESUMED = 3

_ASKED = {"model": MODEL, "max_tokens": _LONGEST_ANSWER, "stream": True}
_AGENT = """
echo begun >> begun.txt
n=$(cat work.txt 2>/dev/null | wc -l)
while [ $n -lt {needed} ]; do
  if code=$(curl -sS -o /tmp/answer -w '%{{http_code}}' -H "x-api-key: $ANTHROPIC_API_KEY" -d '{asked}' \
    $ANTHROPIC_BASE_URL/v1/messages) && [ $code = 200 ]
  then n=$((n + 1)); echo $n >> work.txt
  elif [ $code = 402 ]; then exit 1
  else sleep 0.3
  fi
done
"""

Amounts = Mapping[str, int]


class SpendingFaults(FaultInjector):
    """Kills what requests to models depend on."""

    def _faults(self, cell: FleetCell) -> dict[Fault, int]:
        faults: dict[Fault, int] = {
            self._kill_driver: 5,
            self._kill_zygote: 3,
            self._kill_runner: 3,
            self._kill_door: 3,
            self._kill_service: 2,
            self._pause_driver: 1,
            self._lose_and_mend: 1,
        }
        return faults | ({self._break_links: 4} if isinstance(cell, FleetCoordinator) else {})


async def run_spending(plan: Plan, directory: Path, database: OwnPostgres | None = None) -> Report:
    """Run the plan below `directory`, and report which promises did not hold."""
    rng = random.Random(plan.seed)
    with billing(rng, breaks_off=0.05) as provider:
        fleet = Fleet(directory, plan.cells, plan.coordinators, database, rng)
        for machine in fleet.machines:
            machine.environment |= {"ANTHROPIC_API_KEY": "sk-of-the-storm-4711", "ANTHROPIC_BASE_URL": provider.url}
        async with fleet.running():
            return await _Storm(plan, fleet, provider, rng).run()


class _Storm:
    """One run, from the first job to the checks."""

    def __init__(self, plan: Plan, fleet: Fleet, provider: BillingProvider, rng: random.Random) -> None:
        self._plan = plan
        self._fleet = fleet
        self._provider = provider
        self._rng = rng
        self._submissions = [self._submission(number) for number in range(plan.jobs)]
        self._limits = self._draw_limits()
        self._injector = SpendingFaults(fleet, rng, every_seconds=plan.every_seconds)
        self._passed: list[str] = []

    @property
    def _record(self) -> FaultRecord:
        return self._injector.record

    async def run(self) -> Report:
        budget = budget_pb2.Budget(
            budget_id=_BUDGET, scope=budget_pb2.Budget.SCOPE_PROJECT, period=budget_pb2.Budget.PERIOD_DAY
        )
        budget.limits.CopyFrom(_limits_of(self._limits))
        await self._fleet.ask("budgets", "CreateBudget", budget_pb2.CreateBudgetRequest(budget=budget))
        watching = asyncio.create_task(self._watch())
        await inject_faults(self._plan, self._fleet, self._submissions, self._injector, self._rng)
        quiet = time.monotonic()
        complaints = await unfinished_jobs(self._fleet, self._plan.settle)
        settled_in = time.monotonic() - quiet
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        if not complaints:
            complaints = await remains(self._fleet)
        facts = await gather(self._fleet)
        billed = len(self._provider.bills)
        complaints += self._passed[:5]
        complaints += [f"the job: {complaint}" for complaint in self._wrong_jobs(facts)]
        complaints += [f"the books: {complaint}" for complaint in self._wrong_books(facts)]
        if not complaints:
            complaints = await self._resume(facts)
        complaints += await survivors(self._fleet)
        return Report(
            self._plan,
            self._record,
            complaints,
            Counter(f"{state_of(job)} {job.reason}".strip() for job in facts.jobs),
            Counter(facts.attempts(job.job_id) for job in facts.jobs),
            [f"{billed} requests were billed, of a budget of {_in_words(self._limits)}"],
            settled_in,
        )

    def _submission(self, number: int) -> Submission:
        """Return a job; of each five, one has a budget of its own that lacks one request."""
        asked = json.dumps(
            _ASKED | {"metadata": {"user_id": str(number)}, "messages": [{"role": "user", "content": "go"}]}
        )
        workload = Workload("spends", _AGENT.format(needed=NEEDED, asked=asked), pushes=True)
        spec = job_spec(workload, number, self._fleet.mark, self._rng.choice(self._fleet.repositories), 0)
        spec.policy.max_attempts = _ATTEMPTS
        spec.policy.budget.requests = NEEDED - 1 if _is_tight(number) else NEEDED * _ATTEMPTS
        begins = self._rng.uniform(0, self._plan.seconds / 2)
        return Submission(number, workload, f"{self._fleet.mark}-{number}", begins, spec)

    def _draw_limits(self) -> dict[str, int]:
        """Return the limits of the budget, one of which is too small for all jobs."""
        needs = {"requests": 1, "tokens": _LONGEST_ANSWER // 2 + 10, "nanodollars": 60 * 10_000}
        scarce = self._rng.choice(list(needs))
        count = NEEDED * self._plan.jobs
        return {name: round(need * count * (_SHARE if name == scarce else 10)) for name, need in needs.items()}

    async def _watch(self) -> None:
        """Look at the books again and again: no request is sent that they do not have, and they pass no limit."""
        while True:
            with contextlib.suppress(psycopg.OperationalError):  # the database is away
                await self._look()
            await asyncio.sleep(0.2)

    async def _look(self) -> None:
        arrived = len(self._provider.bills)
        taken: Counter[str] = Counter()
        for row in await asyncio.to_thread(_uses, self._fleet, _BUDGET):
            taken.update({name: row[f"spent_{name}"] + row[f"reserved_{name}"] for name in self._limits})
        self._passed += [
            f"the budget has {most} {name}, and {taken[name]} are spent or reserved"
            for name, most in self._limits.items()
            if taken[name] > most
        ]
        if arrived > taken["requests"]:
            self._passed.append(f"{arrived} requests were sent, and {taken['requests']} reserved")

    def _wrong_jobs(self, facts: Facts) -> Iterator[str]:
        """Each has succeeded with all its work, or has ended for a budget with some; none was lost for good."""
        checks = Checks(self._fleet, self._submissions, facts, self._record)
        yield from checks.every_job_is_there_once()
        yield from checks.every_log_is_whole()
        ends = Counter[str]()
        for job in facts.jobs:
            ends[job.reason or state_of(job)] += 1
            where = f"{job.job_id} ({job.spec.labels[NUMBER]})"
            if job.state == job.STATE_SUCCEEDED:
                yield from self._wrong_work(job)
                if _is_tight(int(job.spec.labels[NUMBER])):
                    yield f"{where} has succeeded with a budget that lacks a request"
            elif job.reason != "BUDGET_EXCEEDED":
                yield f"{where} ended {state_of(job)} {job.reason}: {job.message}"
            elif not job.output.snapshot_id and not _was_taken_over(job, facts):
                yield f"{where} has ended for its budget without its work: {job.message}"
        if len(ends) < 2:
            yield f"all have ended alike, and the budget was to be enough for some: {ends}"

    def _wrong_work(self, job: job_pb2.Job) -> Iterator[str]:
        remote = self._fleet.remotes[job.spec.repository_id]
        work = remote.git("show", f"boatyard/{job.job_id}:work.txt").split()
        if work != [str(number + 1) for number in range(NEEDED)]:
            yield f"{job.job_id} has succeeded with {work} of {NEEDED} answers"

    def _wrong_books(self, facts: Facts) -> Iterator[str]:
        """Compare what each job has spent with its bills, and the budget of all with the jobs."""
        own = {row["subject_id"]: row for row in _uses(self._fleet, "")}
        for row in (*own.values(), *(of_all := _uses(self._fleet, _BUDGET))):
            if left := {name: row[f"reserved_{name}"] for name in self._limits if row[f"reserved_{name}"]}:
                yield f"{left} are still reserved of {row['budget_id']!r} for {row['subject_id']}"
        if left := rows(self._fleet, "SELECT * FROM reservations"):
            yield f"reservations are left: {left}"
        sums: Counter[str] = Counter()
        for job in facts.jobs:
            spent = {name: own[job.job_id][f"spent_{name}"] if job.job_id in own else 0 for name in self._limits}
            sums.update(spent)
            yield from self._wrong_sums(job, facts, spent)
        for name in self._limits:
            if sums[name] != (found := sum(row[f"spent_{name}"] for row in of_all)):
                yield f"the jobs have spent {sums[name]} {name}, and their budget {found}"

    def _wrong_sums(self, job: job_pb2.Job, facts: Facts, spent: Amounts) -> Iterator[str]:
        bills = [bill for bill in self._provider.bills if bill.job == job.spec.labels[NUMBER]]
        billed = {
            "requests": len(bills),
            "tokens": sum(bill.tokens for bill in bills),
            "nanodollars": sum(bill.nanodollars for bill in bills),
        }
        lost = self._lost(job, facts)
        broken = sum(not bill.is_whole for bill in bills)
        for name, amount in billed.items():
            uncertain = lost + (broken if name != "requests" else 0)
            if not amount <= spent[name] <= amount + uncertain * _MOST_RESERVED[name]:
                where = f"{job.job_id} ({job.spec.labels[NUMBER]})"
                yield f"{where} has spent {spent[name]} {name}, was billed {amount}, with {lost} lost, {broken} broken"

    def _lost(self, job: job_pb2.Job, facts: Facts) -> int:
        """Return how many requests may have been lost on their way: each agent has one at a time."""
        executions = facts.executions.get(job.job_id, [])
        doors = sum(self._record.doors_killed[row["execution_id"]] for row in executions)
        killed = self._record.runners_killed
        return doors + sum(row["reason"] in CAN_BE_LOST or row["execution_id"] in killed for row in executions)

    async def _resume(self, facts: Facts) -> list[str]:
        """Raise the budgets, and retry some jobs that have ended for them: they go on, and succeed."""
        raised = budget_pb2.Budget(budget_id=_BUDGET)
        raised.limits.CopyFrom(_limits_of({name: most * 100 for name, most in self._limits.items()}))
        update = budget_pb2.UpdateBudgetRequest(budget=raised, update_mask=FieldMask(paths=["limits"]))
        await self._fleet.ask("budgets", "UpdateBudget", update)
        ended = [job for job in facts.jobs if job.reason == "BUDGET_EXCEEDED"][:_RESUMED]
        for job in ended:
            own = job_pb2.RetryJobRequest(job_id=job.job_id, request_id=f"{job.job_id}-again")
            own.budget.requests = NEEDED * 100
            await self._fleet.ask("jobs", "RetryJob", own)
        complaints = await unfinished_jobs(self._fleet, self._plan.settle)
        for job in ended:
            after = (await self._fleet.ask("jobs", "GetJob", job_pb2.GetJobRequest(job_id=job.job_id))).job
            if after.state != after.STATE_SUCCEEDED:
                complaints.append(f"{job.job_id} was retried with more, and ended {after.reason}: {after.message}")
            else:
                complaints += self._wrong_work(after)
        return complaints


def _was_taken_over(job: job_pb2.Job, facts: Facts) -> bool:
    """True when the machine that has the agent's work was lost before it could take it."""
    return facts.executions[job.job_id][-1]["cell_id"] != job.cell_id


def _is_tight(number: int) -> bool:
    return number % 5 == 0


def _limits_of(amounts: Amounts) -> budget_pb2.BudgetLimits:
    return budget_pb2.BudgetLimits(
        cost_usd=amounts["nanodollars"] / 1e9, tokens=amounts["tokens"], requests=amounts["requests"]
    )


def _in_words(amounts: Amounts) -> str:
    return ", ".join(f"{amount} {name}" for name, amount in amounts.items())


def _uses(fleet: Fleet, budget_id: str) -> Sequence[dict[str, int]]:
    return rows(fleet, f"SELECT * FROM budget_use WHERE budget_id = '{budget_id}'")
