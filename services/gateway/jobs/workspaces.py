"""The jobs that workspaces were made for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import NotFound
from services.gateway.ledger.inputs import read_secrets
from services.gateway.schema.jobs import LIVE, executions, jobs, stages
from services.lifecycle.model.ids import execution_of_workspace
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import Base, Run
from services.lifecycle.model.states import ExecutionState, JobState, Purpose
from services.lifecycle.model.value import load


@dataclass(frozen=True, slots=True)
class WorkspaceOrigin:
    """The job of a workspace, the base that it was made from (None: of none that is recorded), and the job's secrets.

    `agent_runs` is true while the job's agent works in it. `leave_out` are patterns of what the agent's program leaves
    in it that is no result.
    """

    spec: JobSpec
    base: Base | None
    is_live: bool
    agent_runs: bool
    leave_out: tuple[str, ...]
    secrets: Mapping[str, str] = field(repr=False)


async def origin_of(engine: AsyncEngine, workspace_id: str) -> WorkspaceOrigin:
    """Return what a workspace was made for. Raises NotFound for one that is no job's."""
    made_for = or_(
        executions.c.workspace_id == workspace_id, executions.c.execution_id == execution_of_workspace(workspace_id)
    )
    query = (
        select(jobs.c.definition, jobs.c.state, executions.c.job_id, executions.c.attempt)
        .join(jobs, jobs.c.job_id == executions.c.job_id)
        .where(made_for, executions.c.purpose == Purpose.AGENT)
        .limit(1)
    )
    async with engine.begin() as connection:
        row = (await connection.execute(query)).first()
        if row is None:
            raise NotFound("workspace", workspace_id)
        of_attempt = (stages.c.job_id == row.job_id, stages.c.attempt == row.attempt)
        base = (await connection.execute(select(stages.c.result).where(*of_attempt, stages.c.name == "base"))).scalar()
        is_start = or_(stages.c.name == "start", stages.c.name.like("start-%"))  # one for each round
        starts = (await connection.execute(select(stages.c.result).where(*of_attempt, is_start))).scalars().all()
        running = (executions.c.job_id == row.job_id, executions.c.state == ExecutionState.RUNNING)
        runs = (await connection.execute(select(executions.c.purpose).where(*running))).scalars().all()
        secrets = await read_secrets(connection, row.job_id)
    left = dict.fromkeys(pattern for start in starts if start for pattern in load(Run, start).leave_out)
    return WorkspaceOrigin(
        load(JobSpec, row.definition),
        load(Base, base) if base else None,
        JobState(row.state) in LIVE,
        Purpose.AGENT in runs,
        tuple(left),
        secrets,
    )
