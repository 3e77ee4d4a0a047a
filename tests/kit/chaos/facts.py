"""What is there when all is over: read from outside, through the public API, node services, SQL, git and /proc."""

import asyncio
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg
from boatyard.execution.v1 import execution_pb2
from boatyard.gateway.v1 import checkpoint_pb2, job_pb2, runtime_pb2
from boatyard.workspace.v1 import workspace_pb2
from psycopg.rows import dict_row

from services.common.rpc.streaming import streaming
from tests.kit import processes
from tests.kit.chaos.fleet import Fleet
from tests.kit.chaos.machines import FleetCell
from tests.kit.chaos.workloads import MARK
from tests.kit.receiver import Received

FINAL = {job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_CANCELLED}
_NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Log:
    """The events of one execution, as its node has them; `relayed` are the sequences that a gateway relays."""

    sequences: list[int]
    relayed: list[int]
    stdout: bytes
    last_state: str


@dataclass
class Facts:
    """Everything that was read."""

    jobs: list[job_pb2.Job] = field(default_factory=list)
    executions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows of the ledger by job, the oldest first."""
    stages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pushes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """(old, new) of every change of a ref, by ref."""
    received: list[Received] = field(default_factory=list)
    logs: dict[str, Log] = field(default_factory=dict)

    def attempts(self, job_id: str) -> int:
        return len({row["attempt"] for row in self.executions.get(job_id, [])})


async def live_jobs(fleet: Fleet) -> list[job_pb2.Job]:
    """Return the jobs that have not ended."""
    return [job for job in await _all_jobs(fleet) if job.state not in FINAL]


async def gather(fleet: Fleet) -> Facts:
    """Read everything."""
    listed = await _all_jobs(fleet)
    facts = Facts(received=list(fleet.receiver.received))
    for job in listed:
        facts.jobs.append((await fleet.ask("jobs", "GetJob", job_pb2.GetJobRequest(job_id=job.job_id))).job)
    facts.executions = _by_job(rows(fleet, "SELECT * FROM executions ORDER BY create_time, execution_id"))
    facts.stages = _by_job(rows(fleet, "SELECT * FROM stages ORDER BY job_id, attempt, number"))
    facts.pushes = _ref_changes(fleet)
    for execution in (row for rows_of_job in facts.executions.values() for row in rows_of_job):
        if (log := await _log(fleet, execution["execution_id"])) is not None:
            facts.logs[execution["execution_id"]] = log
    return facts


def rows(fleet: Fleet, query: str) -> list[dict[str, Any]]:
    """Query the gateways' database."""
    url = fleet.database_url
    if url.startswith("sqlite:///"):
        with sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20) as connection:
            connection.row_factory = sqlite3.Row
            result = [dict(row) for row in connection.execute(query)]
        connection.close()
        return result
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query).fetchall()


async def leftovers(fleet: Fleet) -> list[str]:
    """Describe what should be gone and is not: slots, leases, processes, workspaces, holds, mounts."""
    left = [
        f"{what}: {row}"
        for what, query in (
            ("a lease", "SELECT job_id, state, cell_id FROM jobs WHERE held"),
            ("a live job", "SELECT job_id, state FROM jobs WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"),
            ("an open stage", "SELECT job_id, attempt, name FROM stages WHERE state = 'RUNNING'"),
            ("an open execution", "SELECT job_id, execution_id FROM executions WHERE state IN ('PENDING', 'RUNNING')"),
        )
        for row in rows(fleet, query)
    ]
    pending = checkpoint_pb2.ListCheckpointsRequest(states=[checkpoint_pb2.Checkpoint.STATE_PENDING])
    questions = (await fleet.ask("checkpoints", "ListCheckpoints", pending)).checkpoints
    left += [f"an open question: {each.checkpoint_id} of {each.job_id}" for each in questions]
    jobs = {job.job_id: job for job in await _all_jobs(fleet)}
    for cell in fleet.living:
        left += [f"{cell.name}: {what}" for what in await _left_on(fleet, cell, jobs)]
    left += [f"a process of an agent: {line}" for line in _agents(fleet)]
    return left


async def _left_on(fleet: Fleet, cell: FleetCell, jobs: dict[str, job_pb2.Job]) -> list[str]:
    left = []
    states = execution_pb2.NodeExecution
    active = execution_pb2.ListExecutionsRequest(states=[states.STATE_PENDING, states.STATE_RUNNING], page_size=1000)
    running = (await _call_until_up(fleet, cell, "executions", "ListExecutions", active)).executions
    left += [f"an active execution: {each.execution_id} of {each.job_id}" for each in running]
    request = workspace_pb2.ListWorkspacesRequest(page_size=1000)
    workspaces = (await _call_until_up(fleet, cell, "workspaces", "ListWorkspaces", request)).workspaces
    allowed = set()
    for workspace in workspaces:
        job = jobs.get(workspace.labels.job_id)
        state = workspace_pb2.Workspace.State.Name(workspace.state)
        if workspace.held_by:
            left.append(f"a hold: {workspace.workspace_id} by {workspace.held_by}")
        may_be_kept = job is not None and job.spec.policy.retention != job.spec.policy.RETENTION_REMOVE
        if not may_be_kept or workspace.state == workspace.STATE_ACTIVE:
            left.append(f"a workspace: {workspace.workspace_id} ({state}) of {workspace.labels.job_id}")
        allowed.add(workspace.workspace_id)
    left += [f"a mount: {point}" for point in _mounts(cell.home) if not allowed & set(point.parts)]
    runners = cell.runners()
    left += [f"a runner: {pid} of {execution_id}" for pid, execution_id in runners.items()]
    return left


def _agents(fleet: Fleet) -> list[str]:
    return [f"{pid} {line}" for pid, line in processes.with_environment({MARK: fleet.mark}).items()]


def _mounts(home: Path) -> list[Path]:
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if home in point.parents]


async def _all_jobs(fleet: Fleet) -> list[job_pb2.Job]:
    """Return all jobs, page by page."""
    jobs: list[job_pb2.Job] = []
    request = job_pb2.ListJobsRequest(page_size=100)
    while True:
        page = await fleet.ask("jobs", "ListJobs", request)
        jobs += page.jobs
        if not page.next_page_token:
            return jobs
        request.page_token = page.next_page_token


async def _call_until_up(fleet: Fleet, cell: FleetCell, service: str, method: str, request: Any) -> Any:
    for _ in range(100):
        try:
            return await getattr(fleet.stub(cell, service), method)(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.3)
    raise AssertionError(f"{service} of {cell.name} does not answer")


async def _log(fleet: Fleet, execution_id: str) -> Log | None:
    """Return the events of an execution from the machine that has them; None if none has."""
    request = execution_pb2.WatchEventsRequest(execution_id=execution_id)
    for cell in fleet.living:
        events = []
        try:
            async with streaming(fleet.stub(cell, "executions").WatchEvents(request)) as messages:
                async for message in messages:
                    events += message.events
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            continue
        outputs = [event.output for event in events if event.HasField("output")]
        states = [event.state_change.state for event in events if event.HasField("state_change")]
        return Log(
            [event.sequence for event in events],
            await _relayed(fleet, execution_id),
            b"".join(output.data for output in outputs if output.stream == output.STREAM_STDOUT),
            states[-1] if states else "",
        )
    return None


async def _relayed(fleet: Fleet, execution_id: str) -> list[int]:
    request = runtime_pb2.WatchExecutionRequest(execution_id=execution_id)
    async with streaming(fleet.stub(fleet.any_cell(), "runtime").WatchExecution(request)) as messages:
        return [event.sequence async for message in messages for event in message.events]


def _ref_changes(fleet: Fleet) -> dict[str, list[tuple[str, str]]]:
    changes = defaultdict(list)
    for remote in fleet.remotes.values():
        logs = remote.path / "logs"
        for file in (path for path in logs.rglob("*") if path.is_file() and path.name != "HEAD"):
            for line in file.read_text().splitlines():
                old, new = line.split(" ")[:2]
                changes[str(file.relative_to(logs))].append(("" if old == _NO_COMMIT else old, new))
    return dict(changes)


def _by_job(all_rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_job = defaultdict(list)
    for row in all_rows:
        by_job[row["job_id"]].append(row)
    return dict(by_job)
