"""A gateway on PostgreSQL, and a database that goes away in the middle of a job: it is waited out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from boatyard.gateway.v1 import job_pb2
from sqlalchemy import make_url

from services.gateway.ledger.claiming import _CLAIMS_LOCK
from services.lifecycle.ledger import LedgerUnavailable
from tests.kit.ledger import books, claimed
from tests.kit.repos import Repo
from tests.kit.services import running_services

pytestmark = pytest.mark.slow


class Proxy:
    """The way to PostgreSQL's socket, by TCP, that can be cut."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(str(self._socket))
        self._writers |= {writer, outer}
        try:
            await asyncio.gather(self._pump(reader, outer), self._pump(inner, writer))
        finally:
            self._writers -= {writer, outer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Give the way, and the database's URL by it."""
    url = make_url(postgres_url)
    folder = url.query["host"]
    assert isinstance(folder, str)
    way = Proxy(next(Path(folder).glob(".s.PGSQL.*[0-9]")))
    await way.open()
    by_tcp = url.set(host="127.0.0.1", port=way.port, query={})
    yield way, by_tcp.render_as_string(hide_password=False)
    await way.cut()


async def test_an_outage_in_mid_run_is_waited_out(tmp_path: Path, remote: Repo, proxy: tuple[Proxy, str]) -> None:
    way, url = proxy
    async with running_services(tmp_path, BOATYARD_DATABASE_URL=url) as services:
        repository = await services.repository(remote)
        command = "echo started >> starts.txt; sleep 1.5"
        jobs = [await services.submit(command, repository_id=repository) for _ in range(2)]
        for job in jobs:
            await services.until(job.job_id, lambda now: any(stage.name == "agent" for stage in now.timeline))
        await way.cut()
        await asyncio.sleep(3)  # the agents end meanwhile
        await way.open()
        for job in jobs:
            ended = await services.ended(job.job_id)
            assert ended.state == job_pb2.Job.STATE_SUCCEEDED, ended
            assert len(ended.execution_ids) == 1
            assert remote.files(ended.output.branch)["starts.txt"] == "started"


async def test_no_cell_takes_for_lost_what_an_outage_kept_others_from_prolonging(proxy: tuple[Proxy, str]) -> None:
    way, url = proxy
    async with books(url) as book:
        one, two = await book.cell("one", lease_seconds=2), await book.cell("two", lease_seconds=2)
        await book.admit()
        lease = await claimed(one)
        await way.cut()
        for beating in (one.beat([lease]), two.beat([])):
            with pytest.raises(LedgerUnavailable):
                await beating
        await asyncio.sleep(3)  # the lease runs out
        await way.open()

        assert await two.claim() is None
        assert (await claimed(one)).attempt == 1
        async with asyncio.timeout(30):  # from which nothing more is heard
            while (taken := await two.claim()) is None:
                await asyncio.sleep(0.1)
        assert taken.attempt == 2


async def test_a_claim_that_stood_still_takes_nothing_that_others_could_not_prolong_meanwhile(
    postgres_url: str,
) -> None:
    async with books(postgres_url) as book:
        one, two = await book.cell("one", lease_seconds=2), await book.cell("two", lease_seconds=2)
        await book.admit()
        await claimed(one)
        async with await psycopg.AsyncConnection.connect(postgres_url) as holding:
            await holding.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIMS_LOCK])
            claiming = asyncio.create_task(two.claim())
            await asyncio.sleep(3)  # the lease runs out
        with pytest.raises(LedgerUnavailable):
            await claiming

        assert await two.claim() is None
        assert (await claimed(one)).attempt == 1
