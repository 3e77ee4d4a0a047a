"""Outages of the database: one error reports them, to callers and to our own loops, whichever statement failed."""

import sqlite3

import structlog
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError

from services.common.errors import Unavailable

# Errors of SQLite that may pass without a change of ours: its file is locked, full, missing or read-only.
_PASSING = frozenset(
    (
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY),
    )
)
_PRIMARY_CODE = 0xFF
_RETRY_SECONDS = 2.0

log = structlog.get_logger()


def tell_outage(context: ExceptionContext) -> Unavailable | None:
    """Return the error to raise for an outage; for SQLAlchemy's event `handle_error`.

    Other errors stay what they are: waiting does not help a wrong statement. After an outage it is unknown whether a
    write was done.
    """
    if context.is_pre_ping or not _is_outage(context):  # a failed ping is normal: the pool reconnects
        return None
    # The driver's own words: SQLAlchemy's would repeat the statement.
    log.warning("the database is away", error=f"{type(context.original_exception).__name__}: {_words(context)}")
    return outage()


def outage() -> Unavailable:
    """Return the error for callers while the database is away, or overloaded."""
    return Unavailable("DATABASE_UNAVAILABLE", "the database cannot be used now: ask again", retry_after=_RETRY_SECONDS)


def _is_outage(context: ExceptionContext) -> bool:
    if context.sqlalchemy_exception is None:  # not the driver's: a task that was cancelled, say
        return False
    if isinstance(context.original_exception, sqlite3.Error):
        code = getattr(context.original_exception, "sqlite_errorcode", None)
        return code is not None and code & _PRIMARY_CODE in _PASSING
    return context.is_disconnect or isinstance(context.sqlalchemy_exception, OperationalError)


def _words(context: ExceptionContext) -> str:
    return " ".join(str(context.original_exception).split())
