"""Pages of a list: by key, never by number, so that nothing is skipped or repeated when rows come and go.

A token holds the last key of its page and a hash of the filter it was made for; it carries no authority.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, Select, literal, tuple_

from services.common.errors import Invalid
from services.common.untrusted_json import parse_json

DEFAULT_SIZE = 50
MAX_SIZE = 1000

Key = tuple[str | int, ...]
Row = TypeVar("Row")
_Statement = TypeVar("_Statement", bound=Select[Any])


@dataclass(frozen=True, slots=True)
class Page:
    """What a caller asked for: at most `size` rows after `after` (None: from the beginning)."""

    size: int = DEFAULT_SIZE
    after: Key | None = None
    filter_hash: str = ""

    @classmethod
    def parse(cls, size: int, token: str, filters: Mapping[str, object] | None = None) -> Self:
        """Read `page_size`, which is not negative, and `page_token` of a request whose other fields are `filters`.

        Size 0 means 50, and more than 1000 means 1000; filters are anything with a repr. Raises Invalid.
        """
        filter_hash = _hash(filters or {})
        after = None
        if token:
            try:
                made_for, *key = parse_json(base64.urlsafe_b64decode(token.encode()))
                after = tuple(_key_part(part) for part in key)
            except (ValueError, TypeError, binascii.Error) as error:
                raise Invalid([("page_token", "is not a token of this service")]) from error
            if made_for != filter_hash:
                raise Invalid([("page_token", "belongs to a list with another filter")])
        return cls(min(size, MAX_SIZE) or DEFAULT_SIZE, after, filter_hash)

    def select(
        self, statement: _Statement, key: Sequence[ColumnElement[Any]], *, descending: bool = False
    ) -> _Statement:
        """Order `statement` by the columns of `key`, which are unique together; fetch one row more than the page."""
        ordered = statement.order_by(*(column.desc() if descending else column.asc() for column in key))
        if self.after is not None:
            if [type(value) for value in self.after] != [column.type.python_type for column in key]:
                raise Invalid([("page_token", "is not a token of this list")])
            last = tuple_(*(literal(value, column.type) for value, column in zip(self.after, key, strict=True)))
            ordered = ordered.where(tuple_(*key) < last if descending else tuple_(*key) > last)
        return ordered.limit(self.size + 1)

    def cut(self, rows: Sequence[Row], key_of: Callable[[Row], Key]) -> tuple[list[Row], str]:
        """Return the page's rows, out of those of `select`, and the token of the next page ("" at the end)."""
        page = list(rows[: self.size])
        return page, "" if len(rows) <= self.size else self.token_after(key_of(page[-1]))

    def token_after(self, key: Key) -> str:
        """Return the token of the page that begins after `key`."""
        return base64.urlsafe_b64encode(json.dumps([self.filter_hash, *key]).encode()).decode()


def _key_part(part: object) -> str | int:
    """Return a part of a key, checked so that any database accepts it, whoever made the token."""
    if isinstance(part, int) and -(2**63) <= part < 2**63:
        return part
    if isinstance(part, str) and "\0" not in part and part.isprintable():
        return part
    raise ValueError(part)


def _hash(filters: Mapping[str, object]) -> str:
    return hashlib.sha256(repr(sorted(filters.items())).encode()).hexdigest()[:16]
