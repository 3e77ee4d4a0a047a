"""What is known about models: their prices, and whether they show their thinking. A table with source and date."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from services.common.errors import StartError

_DEFAULT_TABLE = Path(__file__).with_name("models.json")
_DATE_SUFFIX = re.compile(r"-20\d{6}$")  # a name with a date is a fixed version of the name without it
_PRICES = ("input", "output", "cache_read", "cache_write")
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that one request used; `input` does not include those of the cache."""

    input: int
    output: int
    cache_read: int
    cache_write: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return self.input + self.output + self.cache_read + self.cache_write


@dataclass(frozen=True, slots=True)
class Models:
    """The table of models, as read from `path`."""

    path: Path
    table: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read the table at `path`; without one, the built-in table. Raises StartError."""
        path = path or _DEFAULT_TABLE
        try:
            table = json.loads(path.read_text())["models"]
            for prices in table.values():
                for name in _PRICES:
                    float(prices[name])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise StartError(f"{path} is not a table of models: {type(error).__name__}: {error}") from error
        return cls(path, table)

    def cost_usd(self, model: str, tokens: Tokens) -> float | None:
        """Return the cost of a request; None for a model whose price is unknown."""
        prices = self._row(model)
        if prices is None:
            return None
        dollars = sum(int(getattr(tokens, name)) * float(prices[name]) for name in _PRICES)
        return dollars / _MILLION

    def shows_thoughts(self, model: str) -> bool:
        """Return whether a model accepts, and needs, a request for its thinking."""
        return (self._row(model) or {}).get("adaptive_thinking") is True

    def _row(self, model: str) -> Mapping[str, Any] | None:
        return self.table.get(_DATE_SUFFIX.sub("", model))
