"""A PostgreSQL for the benchmarks, from a wheel; it is stopped and removed at the end of the block."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from tests.kit.postgres import OwnPostgres


@contextmanager
def postgres() -> Iterator[OwnPostgres]:
    """Run a server inside the block."""
    directory = Path(tempfile.mkdtemp(prefix="pg-"))  # short: the path of the server's socket is limited to 107 bytes
    directory.chmod(0o755)  # if we are root, the server runs as another user
    (directory / "python_PostgresServer").mkdir()
    server = OwnPostgres(directory / "data", directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def new_database(server: OwnPostgres, name: str) -> str:
    """Make an empty database; return its URL."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_url(server.url).set(database=name).render_as_string(hide_password=False)
