"""Migrates a database to the newest schema, safely when several processes start at once.

A migration that has landed never changes, because databases were made by it. The next change is a new version:

1. Copy the last file of `services/<service>/migrations` to `v<the next number>_<what>.py`, and write what is new there.
   Only add: tables, indexes, columns that may be null or have a `server_default`. Cells are upgraded one after another,
   and those of the version before keep using their SQL on the new schema; what is unused is removed one version after
   the last code that used it. Cells wait while a migration runs, so never loop over all rows of a large table.
2. Change the service's tables in the same way.
3. Run tests/contract/test_migrations.py: it prints the line to add to its list of landed migrations.
"""

import importlib
import re
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType

from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db import schema
from services.common.errors import StartError

_LOCK = 0x626F6174  # any number, the same for all
_FAULTS_SHOWN = 5
_OURS = re.compile(r"\d{4}(\D.*)?")  # other programs have twelve hexadecimal digits, which may all be decimal


async def migrate(engine: AsyncEngine, package: str) -> None:
    """Run the missing migrations of `package`, such as "services.git.migrations", in one transaction.

    The package holds alembic revisions, `v0001_<what>.py` and so on, no env.py, and `metadata`: the resulting tables.
    A second process waits, and then finds nothing to do. Alembic keeps its context in globals, so one process migrates
    one database at a time.

    Raises StartError when the database is of a newer Boatyard, or differs from its version's schema: then nothing has
    been changed.
    """
    history = importlib.import_module(package)
    try:
        await _migrate(engine, history)
    except DatabaseError as error:
        words = " ".join(str(error.orig).split())
        raise StartError(f"{name_of(engine.url)} cannot be used: {words}. {_mend(engine.url)}") from error


async def _migrate(engine: AsyncEngine, history: ModuleType) -> None:
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(engine.begin())  # SQLite's write lock
        if engine.dialect.name == "postgresql":
            from services.common.db.bounded import unhurried  # noqa: PLC0415 - see open_database

            await stack.enter_async_context(unhurried(connection))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await connection.run_sync(_bring_up, history)


async def look(engine: AsyncEngine, package: str) -> tuple[str, list[str]]:
    """Return the version of a database's schema, and a sentence for each difference from what this program needs.

    Raises Unavailable.
    """
    history = importlib.import_module(package)
    async with engine.begin() as connection:
        return await connection.run_sync(_look, history)


def _bring_up(connection: Connection, history: ModuleType) -> None:
    url, before, versions = connection.engine.url, _version(connection), _versions(history)
    newest = max(versions)
    if before and before not in versions:
        raise StartError(_unknown(url, before, newest))
    if before != newest:
        try:
            _upgrade(connection, history)
        except DBAPIError as error:
            raise StartError(_stuck(url, before, newest, error)) from error
    if faults := schema.faults(connection, history.metadata):
        raise StartError(_odd(url, before or newest, faults))


def _look(connection: Connection, history: ModuleType) -> tuple[str, list[str]]:
    version, versions = _version(connection), _versions(history)
    if version and version not in versions:
        return version, [_unknown(connection.engine.url, version, max(versions))]
    return version, schema.faults(connection, history.metadata)


def _upgrade(connection: Connection, history: ModuleType) -> None:
    # Importing it takes a sixth of a gateway's start, and most starts have nothing to migrate.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", _quoted(Path(__file__).parent / "environment"))
    config.set_main_option("version_locations", _quoted(_folder(history)))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version(connection: Connection) -> str:
    """Return the schema's version as alembic has recorded it; empty for a database without one."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _versions(history: ModuleType) -> set[str]:
    """Return the revisions that this program knows, by the names of their files: 0007 for v0007_<what>.py."""
    return {path.name[1:5] for path in _folder(history).glob("v[0-9]*.py")}


def _folder(history: ModuleType) -> Path:
    return Path(next(iter(history.__path__)))


def _unknown(url: URL, version: str, newest: str) -> str:
    """Say whose a version is that this program does not have."""
    if _OURS.fullmatch(version) is None:
        return f"{name_of(url)} is another program's: it has schema version {version!r}. Use {_another(url)}"
    if version < newest:
        return f"{name_of(url)} has schema version {version}, which no released Boatyard made. {_mend(url)}"
    return (
        f"{name_of(url)} has schema version {version}, made by a newer Boatyard: this one knows versions up to"
        f" {newest}. Run the newer one, restore a copy from before the upgrade, or use {_another(url)}"
    )


def _stuck(url: URL, version: str, newest: str, error: DBAPIError) -> str:
    words = " ".join(str(error.orig).split())
    return (
        f"{name_of(url)} cannot be upgraded from schema version {version or 'none'} to {newest}: {words}. {_mend(url)}"
    )


def _odd(url: URL, version: str, faults: list[str]) -> str:
    more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    shown = "; ".join(faults[:_FAULTS_SHOWN])
    return f"{name_of(url)} says that it has schema version {version}, but it differs: {shown}{more}. {_mend(url)}"


def _mend(url: URL) -> str:
    return (
        "Nothing in it was changed. If it was made by a Boatyard that was never released, run that one, restore an"
        f" earlier copy, or use {_another(url)}"
    )


def name_of(url: URL) -> str:
    """Return a database's URL without its password."""
    if url.get_backend_name() == "sqlite":
        return f"the database {url.database}"
    port = f":{url.port}" if url.port else ""
    host = url.host or url.query.get("host") or "this machine"
    return f"the database {url.database} at {host}{port}"


def _another(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return "an empty data directory (BOATYARD_HOME)"
    return "an empty database (BOATYARD_DATABASE_URL)"


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%%")  # for ConfigParser
