"""Bringing a database to the newest schema, safely when several processes start at once."""

import importlib.util
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import StartError

_LOCK = 0x626F6174  # any number that everybody takes


async def migrate(engine: AsyncEngine, package: str) -> None:
    """Run what is missing of `package` (such as "services.git.migrations"), in one transaction: all of it or nothing.

    The package holds alembic revisions, `v0001_<what>.py` and so on, and no env.py. Whoever comes second waits and
    finds nothing to do. Alembic keeps its context in globals, so one process migrates one database at a time. Raises
    StartError when the database is of a newer Boatyard.
    """
    async with engine.begin() as connection:  # SQLite's write lock
        if engine.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await connection.run_sync(_upgrade, _folder(package))


def _upgrade(connection: Connection, versions: Path) -> None:
    if _revision(connection) == _newest(versions):
        return
    # A sixth of a gateway's start is importing it, and most starts have nothing to do.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", _quoted(Path(__file__).parent / "environment"))
    config.set_main_option("version_locations", _quoted(versions))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        if "Can't locate revision" not in str(error):
            raise
        raise StartError("the database was made by a newer Boatyard: use that version, or another database") from error


def _revision(connection: Connection) -> str | None:
    """Return the schema's version, as alembic writes it down; None for a database without one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _newest(versions: Path) -> str:
    """Return the last revision, which its file is named after: 0007 of v0007_<what>.py."""
    return max(path.name for path in versions.glob("v[0-9]*.py"))[1:5]


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{package} is no package")
    return Path(next(iter(spec.submodule_search_locations)))


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%%")  # for ConfigParser
