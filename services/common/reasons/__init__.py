"""Why a job, or one of its executions, ends without success: a table that code, messages and docs/reasons.md come from.

A new reason needs a row in `before_agent` or `from_agent_on`, and a place that raises it. What a node refuses with a
reason that has no row ends a job as INTERNAL. The names are in the API and in stored jobs: a row is never renamed.
"""

from collections.abc import Collection, Mapping
from typing import Final

from services.common.reasons.before_agent import BEFORE_AGENT
from services.common.reasons.from_agent_on import FROM_AGENT_ON
from services.common.reasons.row import ReasonRow, Retried, Source

__all__ = ["REASONS", "ReasonRow", "Retried", "Source", "is_listed", "with_advice"]

REASONS: Final[Mapping[str, ReasonRow]] = {row.reason: row for row in (*BEFORE_AGENT, *FROM_AGENT_ON)}
"""The rows by their reason, in the order in which people see them listed."""


def is_listed(reason: str, listed: Collection[str]) -> bool:
    """True when a policy's list of reasons has this one, or the one that it was a part of."""
    row = REASONS.get(reason)
    return reason in listed or (row is not None and row.part_of in listed)


def with_advice(reason: str, message: str) -> str:
    """Return a message followed by the advice for its reason, unless it has advice already or there is none."""
    row = REASONS.get(reason)
    if row is None or any(words in message for words in (row.advice, *row.advised_by)):
        return message
    return f"{message}; {row.advice}" if message else row.advice
