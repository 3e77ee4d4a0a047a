"""A database that is away, for now: one error says so, to callers and to our own loops, whichever statement met it."""

import sqlite3

import structlog
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError

from services.common.errors import Unavailable

# Of SQLite's errors these pass, or are mended, without a change of ours: its file is locked, full, gone or read-only.
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
    """Return what is raised in place of an outage; for SQLAlchemy's event `handle_error`.

    Other errors stay what they are: a wrong statement does not get better by waiting. Whether what was being written
    has been written is not known.
    """
    if context.is_pre_ping or not _is_outage(context):  # a ping's failure is an answer: the pool connects anew
        return None
    # The driver's own words: SQLAlchemy's would repeat the statement.
    log.warning("the database is away", error=f"{type(context.original_exception).__name__}: {_words(context)}")
    return outage()


def outage() -> Unavailable:
    """Return what callers are told while the database is away, or is asked for more than it can do."""
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
