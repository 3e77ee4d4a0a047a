"""What requests cost: by a table (`prices.json`) that `make prices` makes from the package genai-prices, and `terms`.

What is not in the table has no known price. Of what is served by many (models with open weights) the table has none.
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from services.agent.providers import REPLAYED, ModelWire
from services.execution.door import terms

TABLE: Final = Path(__file__).with_name("prices.json")
CLASSES: Final = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
"""The classes of tokens that have prices. What has none of its own costs what `INSTEAD` costs."""
INSTEAD: Final = {"cache_read": "input", "cache_write": "input", "cache_write_1h": "cache_write"}

_TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_MILLION: Final = 1e6


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the table: the pattern of its names, and its prices from each date on, the latest first."""

    names: re.Pattern[str]
    prices: tuple[tuple[str, Mapping[str, Any]], ...]


def cost_usd(
    wire: ModelWire, usage: Mapping[str, Any], now: datetime | None = None, *, at_most: bool = False
) -> float | None:
    """Return what a request cost, from the fields of its Usage event; None when that is not known.

    One that broke off costs what was known of it, which is what its answer had begun with. `at_most` is for one that is
    still to be served: what it asks to be cheaper for may be refused to it.
    """
    wire, name = ModelWire.RESPONSES if wire is ModelWire.CHAT else wire, usage["model"].lower()
    model = _model(wire, name)
    if model is None or (usage["is_partial"] and not any(usage[name] for name in _TOKENS)):
        return None
    today = (now or datetime.now(UTC)).strftime("%Y-%m-%d")
    prices = next((prices for start, prices in model.prices if start <= today), None)
    tokens_usd = None if prices is None else _cost(prices, usage)
    factor = (terms.dearest if at_most else terms.factor)(wire, name, usage.get("terms", ()))
    searches_usd = terms.searches_usd(wire, name, usage.get("web_searches", 0))
    if tokens_usd is None or factor is None or searches_usd is None:
        return None
    return tokens_usd * factor + searches_usd


def priced(wire: ModelWire, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Usage event with what it cost, if that is known: a replay costs nothing."""
    cost = 0.0 if usage.get("provider") == REPLAYED else cost_usd(wire, usage)
    return {**usage} if cost is None else {**usage, "cost_usd": cost}


def _cost(prices: Mapping[str, Any], usage: Mapping[str, Any]) -> float | None:
    lasting = usage["cache_write_1h_tokens"]
    tokens = {name: usage[f"{name}_tokens"] for name in ("input", "output", "cache_read")}
    tokens |= {"cache_write": usage["cache_write_tokens"] - lasting, "cache_write_1h": lasting}
    read = tokens["input"] + tokens["cache_read"] + usage["cache_write_tokens"]
    dollars = 0.0
    for name, count in tokens.items():
        if count and (price := _price(prices, name, read)) is None:
            return None
        dollars += count * price / _MILLION if count else 0.0
    return dollars


def _price(prices: Mapping[str, Any], name: str, read: int) -> float | None:
    """Return the price of a million tokens of a class, in a request that reads so many."""
    while name not in prices:
        if name not in INSTEAD:
            return None
        name = INSTEAD[name]
    base, *tiers = prices[name]
    return float(next((price for above, price in reversed(tiers) if read > above), base))


def _model(wire: ModelWire, name: str) -> Model | None:
    return next((model for model in load()[wire] if model.names.fullmatch(name)), None)


@functools.cache
def load() -> Mapping[ModelWire, tuple[Model, ...]]:
    """Read the table, of models by their own wire; once in a process. Those of OpenAI are at RESPONSES."""
    table = json.loads(TABLE.read_text())["models"]
    return {
        ModelWire(wire): tuple(
            Model(re.compile(row["names"]), tuple((start, prices) for start, prices in row["prices"])) for row in rows
        )
        for wire, rows in table.items()
    }
