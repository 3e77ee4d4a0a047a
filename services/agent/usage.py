"""What requests to models used and cost, as sums: by provider, model and day where they are made, over jobs later.

Standard library only: runners import it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

MAX_SUMS: Final = 64
"""The most sums of one execution. An agent chooses the names of models: what exceeds this is one sum, of `OTHERS`."""
OTHERS: Final = "others"

_OF_EVENT: Final = (
    *("input_tokens", "output_tokens", "cache_read_tokens"),
    *("cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens"),
)
_IN_ALL: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What some requests used together. The contract (`agent.v1.UsageSum`) says what each number counts.

    `cost_usd` is of the requests whose cost is known, and None when there is none.
    """

    requests: int = 0
    partial_requests: int = 0
    unpriced_requests: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None

    def __add__(self, other: "UsageSum") -> "UsageSum":
        costs = [each.cost_usd for each in (self, other) if each.cost_usd is not None]
        counted = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return UsageSum(**counted, cost_usd=sum(costs) if costs else None)


COUNTS: Final = tuple(each.name for each in fields(UsageSum) if each.name != "cost_usd")
"""The fields of UsageSum that are whole numbers."""


def of_request(event: Mapping[str, Any]) -> UsageSum:
    """Return what one request used, from the fields of its Usage event."""
    return UsageSum(
        requests=1,
        partial_requests=int(bool(event.get("is_partial"))),
        unpriced_requests=int(event.get("cost_usd") is None),
        tokens=sum(event[name] for name in _IN_ALL),
        cost_usd=event.get("cost_usd"),
        **{name: event.get(name, 0) for name in _OF_EVENT},
    )


@dataclass(frozen=True, slots=True)
class ModelUsageSum:
    """What one model of one provider was used for on one day in UTC, such as 2030-01-31. Names are empty if unknown."""

    provider: str
    model: str
    day: str
    usage: UsageSum


class UsageSums:
    """Sums what requests used by provider, model and day."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], UsageSum] = {}

    def add(self, event: Mapping[str, Any], time_ns: int) -> None:
        """Add a Usage event, which was written at this time, in nanoseconds since 1970."""
        day = f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d}"
        key = (event.get("provider", ""), event["model"], day)
        if key not in self._sums and len(self._sums) >= MAX_SUMS - 1:
            key = (OTHERS, OTHERS, min(self._sums)[2])
        self._sums[key] = self._sums.get(key, UsageSum()) + of_request(event)

    def result(self) -> tuple[ModelUsageSum, ...]:
        """Return the sums, ordered by day, provider and model."""
        rows = [ModelUsageSum(*key, usage) for key, usage in self._sums.items()]
        return tuple(sorted(rows, key=lambda row: (row.day, row.provider, row.model)))


def from_json(rows: Iterable[Mapping[str, Any]]) -> tuple[ModelUsageSum, ...]:
    """Read sums that were written as JSON objects by any version, as far as this version understands them."""
    known = {each.name for each in fields(UsageSum)}
    return tuple(
        ModelUsageSum(
            row["provider"],
            row["model"],
            row["day"],
            UsageSum(**{name: value for name, value in row["usage"].items() if name in known}),
        )
        for row in rows
    )


def by_model(rows: Iterable[ModelUsageSum]) -> tuple[ModelUsageSum, ...]:
    """Return sums of all days, by provider and model: what cost most is first, and what has no known cost is last."""
    sums: dict[tuple[str, str], UsageSum] = {}
    for row in rows:
        key = (row.provider, row.model)
        sums[key] = sums.get(key, UsageSum()) + row.usage
    merged = (ModelUsageSum(*key, "", usage) for key, usage in sums.items())
    return tuple(
        sorted(merged, key=lambda row: (-(row.usage.cost_usd or 0.0), -row.usage.tokens, row.provider, row.model))
    )
