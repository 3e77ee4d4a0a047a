"""What is left on a machine whose job another has taken over is ended there, and nothing that is somebody's still."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub
from sqlalchemy import update

from services.agent.settings import AgentSettings, CommandEngine
from services.common.db.engine import sqlite_url
from services.gateway.ledger.statuses import JobStatuses
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.lifecycle.driver import Driver
from services.lifecycle.model.outcome import RetentionPeriods
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import Retention
from services.lifecycle.nodes import NodeInventory, Nodes
from services.lifecycle.orphans import OrphanReaper
from tests.kit.ledger import Books, books, claimed


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(100):
        while not await holds():
            await asyncio.sleep(0.05)


async def left_behind(book: Books, nodes: Nodes, retention: Retention) -> str:
    """Have a cell begin a job whose agent runs long, and let go of it; return the job."""
    agent, policy = AgentSettings(engine=CommandEngine(line="sleep 600")), Policy(retention=retention)
    job_id = (await book.admit(agent=agent, policy=policy)).spec.job_id

    async def runs() -> bool:
        return job_id in {each.job_id for each in await NodeInventory(nodes).executions()}

    driving = asyncio.create_task(Driver(await book.cell("one"), nodes, capacity=1).run())
    try:
        await eventually(runs)
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)
    return job_id


async def taken_over(book: Books) -> None:
    async with book.engine.begin() as connection:
        await connection.execute(update(jobs).values(lease_until=now() - 1))
    assert (await claimed(await book.cell("two"))).attempt == 2


def strays(book: Books, nodes: Nodes, cell_id: str = "one") -> OrphanReaper:
    return OrphanReaper(NodeInventory(nodes), JobStatuses(book.engine, cell_id).of, RetentionPeriods())


async def here(nodes: Nodes, job_id: str) -> tuple[int, list[workspace_pb2.Workspace]]:
    """Return how many executions a job has that have not ended, and its workspaces."""
    executions = [each for each in await NodeInventory(nodes).executions() if each.job_id == job_id]
    request = workspace_pb2.ListWorkspacesRequest(job_id=job_id)
    answer = await WorkspaceServiceStub(nodes.workspace).ListWorkspaces(request)
    return len(executions), list(answer.workspaces)


@pytest.mark.parametrize("retention", [Retention.REMOVE, Retention.KEEP_FAILED])
async def test_what_another_cell_has_taken_over_is_ended(book: Books, nodes: Nodes, retention: Retention) -> None:
    job_id = await left_behind(book, nodes, retention)
    await taken_over(book)

    async def all_ended() -> bool:
        return await strays(book, nodes).end() == 0

    await eventually(all_ended)
    active, workspaces = await here(nodes, job_id)
    assert active == 0
    if retention is Retention.REMOVE:
        assert workspaces == []
    else:
        assert [each.state for each in workspaces] == [workspace_pb2.Workspace.STATE_ERROR]
        assert workspaces[0].HasField("expire_time")


async def test_what_is_carried_here_or_unknown_is_left_alone(book: Books, nodes: Nodes, tmp_path: Path) -> None:
    job_id = await left_behind(book, nodes, Retention.REMOVE)
    async with books(sqlite_url(tmp_path / "other.db")) as other:
        assert await strays(other, nodes).end() == 0
    assert await strays(book, nodes).end() == 0

    active, workspaces = await here(nodes, job_id)
    assert active == 1
    assert [each.state for each in workspaces] == [workspace_pb2.Workspace.STATE_ACTIVE]

    async def ended() -> bool:
        return await strays(book, nodes, "two").end() == 0

    await eventually(ended)  # so that nothing is left for the next test
