"""A machine that cannot carry a job gives it to another one, or waits; the job loses no attempt by it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.agent.settings import AgentSettings, CommandEngine
from services.common.rpc.channel import open_channel
from services.gateway.cells.store import CellStore
from services.gateway.schema.clock import now
from services.gateway.values.cells import Cell
from services.gateway.values.jobs import JobView
from services.lifecycle.driver import Driver
from services.lifecycle.model.states import JobState
from services.lifecycle.nodes import Nodes
from tests.kit.ledger import Books, set_job
from tests.kit.services import Services

pytestmark = pytest.mark.slow

AGENT = AgentSettings(engine=CommandEngine(line="echo done > made.txt"))


PLENTY = str(1 << 60)
RESERVES = {
    "workspace": "BOATYARD_WORKSPACE_DISK_RESERVE_BYTES",
    "git": "BOATYARD_GIT_MIN_FREE_BYTES",
    "execution": "BOATYARD_EXECUTION_DISK_RESERVE_BYTES",
}
"""What keeps a service without room from doing its part."""


@asynccontextmanager
async def full_nodes(nodes: Nodes, directory: Path, name: str = "workspace") -> AsyncIterator[Nodes]:
    """Give the node services of a machine whose disk is full, one of which notices."""
    directory.mkdir()
    services = Services(directory, **{RESERVES[name]: PLENTY})
    services.start(name)
    try:
        await services.serving(name)
        async with open_channel(services.address(name), services.home.cell_token()) as channel:
            yield replace(nodes, **{name: channel})
    finally:
        services.end(name)


@asynccontextmanager
async def driving(book: Books, nodes: Nodes, cell_id: str) -> AsyncIterator[None]:
    store = CellStore(book.engine, 60)
    await store.register(Cell(cell_id=cell_id, host="h", version="1", capacity=1, address="", peer_token=""))
    driver = asyncio.create_task(Driver(await book.cell(cell_id), nodes, capacity=1, poll_seconds=0.1).run())
    try:
        yield
    finally:
        driver.cancel()
        await asyncio.gather(driver, return_exceptions=True)


async def until(book: Books, job_id: str, executions: int, state: JobState) -> JobView:
    async with asyncio.timeout(90):
        while True:
            job = await book.store.job(job_id)
            if job.state is state and len(job.executions) >= executions:
                return job
            assert job.state in {JobState.PENDING, JobState.RUNNING}, job
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("service", RESERVES)
async def test_another_machine_takes_what_one_has_no_room_for(
    book: Books, nodes: Nodes, tmp_path: Path, service: str
) -> None:
    job_id = (await book.admit(agent=AGENT)).spec.job_id
    async with full_nodes(nodes, tmp_path / "full", service) as full, driving(book, full, "full"):
        job = await until(book, job_id, 2, JobState.PENDING)
        assert (job.executions[0].reason, job.executions[0].state) == ("DISK_FULL", "FAILED")
        async with driving(book, nodes, "roomy"):
            job = await until(book, job_id, 2, JobState.SUCCEEDED)
    assert [execution.cell_id for execution in job.executions][-1] == "roomy"


async def test_the_only_machine_is_asked_again_and_the_job_ends_by_name_when_the_patience_does(
    book: Books, nodes: Nodes, tmp_path: Path
) -> None:
    job_id = (await book.admit(agent=AGENT)).spec.job_id
    async with full_nodes(nodes, tmp_path / "full") as full, driving(book, full, "full"):
        for attempt in range(2, 6):  # more than the policy's three
            await until(book, job_id, attempt, JobState.PENDING)
            waited = 20 if attempt < 5 else 7200
            await set_job(book, job_id, wake_time=1, refused_since=now() - waited * 1_000_000)
        job = await until(book, job_id, 5, JobState.FAILED)
    assert job.reason == "DISK_FULL"
