"""Outages of the database: one error reports them, to callers and to our own loops, whichever statement failed."""

import sqlite3
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError

from services.common.errors import Unavailable
from services.common.room import DISK, RESOURCE, has_no_room

# Errors of SQLite that may pass without a change of ours: its file is locked, full, missing or read-only.
_PASSING = frozenset(
    (
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY),
    )
)
_PRIMARY_CODE = 0xFF
_RETRY_SECONDS = 2.0
# PostgreSQL's word for a server that only answers questions: after a failover, this connection leads to the wrong one.
_READ_ONLY: Final = "25006"
_DISK_FULL: Final = "53100"

log = structlog.get_logger()


def tell_outage(context: ExceptionContext) -> Unavailable | None:
    """Return the error to raise for an outage; for SQLAlchemy's event `handle_error`.

    Other errors stay what they are: waiting does not help a wrong statement. After an outage it is unknown whether a
    write was done. The connections to a server that has become read-only are given up: new ones find the one to write.
    """
    if context.is_pre_ping or not _is_outage(context):  # a failed ping is normal: the pool reconnects
        return None
    if _state(context) == _READ_ONLY:
        context.is_disconnect = True
    # The driver's own words: SQLAlchemy's would repeat the statement.
    log.warning("the database is away", error=f"{type(context.original_exception).__name__}: {_words(context)}")
    return outage(lacks_room=_lacks_room(context))


def outage(*, lacks_room: bool = False) -> Unavailable:
    """Return the error for callers while the database is away, or overloaded, or its disk is full."""
    why, facts = "cannot be used now: ask again", {}
    if lacks_room:
        why, facts = "has no room on its disk: it goes on by itself when there is some", {RESOURCE: DISK}
    return Unavailable("DATABASE_UNAVAILABLE", f"the database {why}", retry_after=_RETRY_SECONDS, metadata=facts)


def _is_outage(context: ExceptionContext) -> bool:
    if context.sqlalchemy_exception is None:  # not the driver's: a task that was cancelled, say
        return False
    if isinstance(context.original_exception, sqlite3.Error):
        return _code(context) in _PASSING
    is_operational = isinstance(context.sqlalchemy_exception, OperationalError)
    return context.is_disconnect or is_operational or _state(context) == _READ_ONLY


def _lacks_room(context: ExceptionContext) -> bool:
    if _state(context) == _DISK_FULL or _code(context) == sqlite3.SQLITE_FULL:
        return True
    # SQLite says of most of its files only that it cannot read or write them.
    database = context.dialect.name == "sqlite" and context.engine is not None and context.engine.url.database
    return bool(database) and has_no_room(Path(str(database)).parent)


def _code(context: ExceptionContext) -> int | None:
    """Return SQLite's primary result code, of an error of SQLite's."""
    code: int | None = getattr(context.original_exception, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY_CODE


def _state(context: ExceptionContext) -> str | None:
    """Return the SQLSTATE of an error of PostgreSQL's."""
    state: str | None = getattr(context.original_exception, "sqlstate", None)
    return state


def _words(context: ExceptionContext) -> str:
    return " ".join(str(context.original_exception).split())
