"""Chaos from beginning to end: submissions and faults for some time, then quiet, then the checks."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from boatyard.gateway.v1 import job_pb2

from tests.kit import processes
from tests.kit.chaos.answers import Answers
from tests.kit.chaos.checks import Checks, state_of
from tests.kit.chaos.facts import gather, leftovers, live_jobs, rows
from tests.kit.chaos.faults import FaultInjector, FaultRecord
from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.submissions import Submission, draw_submissions, submit_all
from tests.kit.postgres import OwnPostgres

_CLEANUP_SECONDS = 90.0


@dataclass(frozen=True)
class Plan:
    """The size of a run. Times are in seconds; `settle` is how long jobs may take after the last fault."""

    seed: int
    jobs: int
    seconds: float
    cells: int = 1
    coordinators: int = 0
    every_seconds: float = 4.0
    outages: int = 0
    lose_a_cell: bool = False
    settle: float = 300.0


@dataclass
class Report:
    """What happened, and what did not hold."""

    plan: Plan
    record: FaultRecord
    complaints: list[str]
    ends: Counter[str]
    attempts: Counter[int]
    taken_over: list[str]
    settled_in: float

    def __str__(self) -> str:
        faults = ", ".join(f"{what} {count}" for what, count in sorted(self.record.counts.items()))
        return "\n".join(
            [
                f"seed {self.plan.seed}: {self.plan.jobs} jobs for {self.plan.seconds:g} s",
                f"on {self.plan.cells} cells and {self.plan.coordinators} coordinators",
                f"all had ended {self.settled_in:.0f} s after the last fault",
                f"faults: {faults}",
                "ends: " + ", ".join(f"{end} {count}" for end, count in sorted(self.ends.items())),
                "attempts: " + ", ".join(f"{count} jobs {n}" for n, count in sorted(self.attempts.items())),
                *self.taken_over,
                f"{len(self.complaints)} complaints",
                *(f"  {complaint}" for complaint in self.complaints),
            ]
        )


async def run_chaos(plan: Plan, directory: Path, database: OwnPostgres | None = None) -> Report:
    """Run the plan below `directory`, and report which promises did not hold."""
    rng = random.Random(plan.seed)
    fleet = Fleet(directory, plan.cells, plan.coordinators, database, rng)
    async with fleet.running():
        submissions = draw_submissions(rng, fleet, plan.jobs, plan.seconds * 0.9)
        injector = FaultInjector(fleet, rng, every_seconds=plan.every_seconds)
        answers = Answers(fleet, submissions, rng)
        answering = asyncio.create_task(answers.give())
        await inject_faults(plan, fleet, submissions, injector, rng)
        quiet = time.monotonic()
        complaints = await unfinished_jobs(fleet, plan.settle)
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
        complaints += answers.complaints
        settled_in = time.monotonic() - quiet
        if not complaints:
            complaints = await remains(fleet)
        facts = await gather(fleet)
        complaints += Checks(fleet, submissions, facts, injector.record).complaints()
        complaints += await survivors(fleet)
        return Report(
            plan,
            injector.record,
            complaints,
            Counter(f"{job.spec.prompt.split()[0]} {state_of(job)} {job.reason}".strip() for job in facts.jobs),
            Counter(facts.attempts(job.job_id) for job in facts.jobs),
            _taken_over(fleet, injector.record),
            settled_in,
        )


async def inject_faults(
    plan: Plan, fleet: Fleet, submissions: list[Submission], injector: FaultInjector, rng: random.Random
) -> None:
    """Submit the jobs while faults are injected, for as long as the plan says."""
    submitting = asyncio.create_task(submit_all(submissions, fleet, rng))
    injecting = [asyncio.create_task(injector.run())]
    if plan.outages:
        injecting.append(asyncio.create_task(injector.interrupt_database(plan.outages, plan.seconds)))
    began = time.monotonic()
    try:
        if plan.lose_a_cell:
            await asyncio.sleep(plan.seconds * 0.6)
            await injector.lose_for_good(fleet.cells[-1])
        await asyncio.sleep(plan.seconds - (time.monotonic() - began))
    finally:
        injector.stop()
        await asyncio.wait(injecting)  # wait for all of it, so that no cell is started after the fleet has ended
    await asyncio.gather(submitting, *injecting)


async def unfinished_jobs(fleet: Fleet, seconds: float) -> list[str]:
    """Wait until every job has ended; describe those that do not end in time."""
    deadline = time.monotonic() + seconds
    while live := await live_jobs(fleet):
        if time.monotonic() > deadline:
            return [f"it does not end: {await _where(fleet, job)}" for job in live]
        await asyncio.sleep(0.5)
    return []


async def _where(fleet: Fleet, job: job_pb2.Job) -> str:
    whole = (await fleet.ask("jobs", "GetJob", job_pb2.GetJobRequest(job_id=job.job_id))).job
    stages = [f"{stage.name}:{stage.state}" for stage in whole.timeline]
    return f"{job.job_id} {job.spec.prompt!r} {state_of(job)} on {job.cell_id}: {' '.join(stages)}"


async def remains(fleet: Fleet) -> list[str]:
    """Wait until nothing is left behind; describe what stays."""
    deadline = time.monotonic() + _CLEANUP_SECONDS
    while left := await leftovers(fleet):
        if time.monotonic() > deadline:
            return [f"left behind: {what}" for what in left]
        await asyncio.sleep(1)
    return []


async def survivors(fleet: Fleet) -> list[str]:
    """End the cells, and describe the processes that outlive them."""
    await fleet.each(lambda cell: cell.down())
    return [
        f"outlives `down` of {cell.name}: {line}"
        for cell in fleet.living
        for line in processes.with_environment({"BOATYARD_HOME": str(cell.home)}).values()
    ]


def _taken_over(fleet: Fleet, record: FaultRecord) -> list[str]:
    """Say how long it took until others took over a lost machine's jobs, and until these ended."""
    lines = []
    for cell_id, when in record.lost_for_good.items():
        taken_over = rows(
            fleet,
            "SELECT j.job_id, min(e.create_time) AS taken, max(j.end_time) AS ended FROM jobs j"
            " JOIN executions e ON e.job_id = j.job_id"
            " JOIN executions before ON before.job_id = e.job_id AND before.attempt = e.attempt - 1"
            f" WHERE before.cell_id = '{cell_id}' AND e.purpose = 'AGENT' AND e.create_time >= {when * 1e6:.0f}"
            " GROUP BY j.job_id",
        )
        taken = [row["taken"] / 1e6 - when for row in taken_over]
        ended = [row["ended"] / 1e6 - when for row in taken_over if row["ended"]]
        told = f"its jobs were restarted elsewhere after {_seconds(taken)} s, and had ended after {_seconds(ended)} s"
        lines.append(f"{cell_id} was lost for good: {told if taken else 'it had no jobs that could be restarted'}")
    return lines


def _seconds(times: list[float]) -> str:
    return ", ".join(f"{seconds:.1f}" for seconds in sorted(times))
