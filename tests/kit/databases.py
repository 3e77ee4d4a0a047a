"""Databases as a first start leaves them, made once: a start that makes its own takes a third longer.

`tests/integration/supervisor` starts cells that have none yet.
"""

import asyncio
import base64
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from sqlalchemy import URL

from services.common.db.engine import open_database, sqlite_url
from services.common.db.migrate import migrate
from services.gateway.schema.sealing import KEY_BYTES, KeyRing


@cache
def ring_of(engine_url: URL) -> KeyRing:
    """Return the ring of a database that the test itself opens: the same whenever it is opened again."""
    return KeyRing([os.urandom(KEY_BYTES)])


def write_keys(path: Path) -> Path:
    """Write a file with a key for cells that share a database; return its path."""
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(os.urandom(KEY_BYTES)).decode())
    return path


NODE_SERVICES = ("workspace", "git", "execution")


def add_databases(home: Path, *services: str) -> None:
    """Put the databases of these services, all if none is named, into a data directory that lacks them."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for service in services or (*NODE_SERVICES, "gateway"):
        directory = home / service
        directory.mkdir(mode=0o700, exist_ok=True)
        add_database(directory / f"{service}.db", service)


def add_database(path: Path, service: str) -> None:
    """Make the database of a service, unless there is one."""
    path.touch(mode=0o600)
    if path.stat().st_size == 0:
        path.write_bytes(_made(service))


@cache
def _made(service: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "database"
        make_tables(sqlite_url(path), service)
        return path.read_bytes()


def make_tables(url: str | URL, service: str) -> None:
    """Make a service's tables in an empty database, in a thread: it needs an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _migrated(url, service)).result()


async def _migrated(url: str | URL, service: str) -> None:
    engine = open_database(url)
    try:
        await migrate(engine, f"services.{service}.migrations")
    finally:
        await engine.dispose()
