"""The database's clock, which is the only clock that the ledger uses."""

from typing import Any

from sqlalchemy import BigInteger, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from services.common.db.columns import Moment


class now(FunctionElement[int]):  # noqa: N801 - it reads as SQL
    """Microseconds since 1970, by the database's clock; on PostgreSQL of the moment, not of the transaction's start."""

    inherit_cache = True
    type = BigInteger()


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: SQLCompiler, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's protocol
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's protocol
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


NOW = type_coerce(now(), Moment)
"""The same, for a column of type Moment."""
