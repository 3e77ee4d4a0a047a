"""Columns that read the same from SQLite and PostgreSQL."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, Dialect, type_coerce
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """A moment in UTC, kept as microseconds since 1970: exact, ordered, and without the zones that SQLite lacks.

    As part of a page's key it is `as_number(column)` and `microseconds(time)`: page tokens hold numbers.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - inherited
        """See TypeDecorator."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - inherited
        """See TypeDecorator."""
        return None if value is None else from_microseconds(value)


def as_number(moment: ColumnElement[datetime]) -> ColumnElement[int]:
    """Return a column of moments as the numbers that it holds."""
    return type_coerce(moment, BigInteger)


def microseconds(time: datetime) -> int:
    """Return a time as `Moment` keeps it."""
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(number: int) -> datetime:
    """Return the time that `Moment` keeps as this number."""
    return _EPOCH + number * _MICROSECOND
