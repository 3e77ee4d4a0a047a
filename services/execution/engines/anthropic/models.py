"""What is known of models: what they cost, and whether they show their thoughts. A table with source and date."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from services.common.errors import StartError

_OURS = Path(__file__).with_name("models.json")
_DATED = re.compile(r"-20\d{6}$")  # a name with a date is a fixed version of the name without
_PRICES = ("input", "output", "cache_read", "cache_write")
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one request used, in tokens; `input` is without those of the cache."""

    input: int
    output: int
    cache_read: int
    cache_write: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.input + self.output + self.cache_read + self.cache_write


@dataclass(frozen=True, slots=True)
class Models:
    """The table of `path`."""

    path: Path
    table: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read a table, ours unless there is a `path`. Raises StartError."""
        path = path or _OURS
        try:
            table = json.loads(path.read_text())["models"]
            for prices in table.values():
                for name in _PRICES:
                    float(prices[name])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise StartError(f"{path} is no table of models: {type(error).__name__}: {error}") from error
        return cls(path, table)

    def cost_usd(self, model: str, tokens: Tokens) -> float | None:
        """What a request costs; None for a model whose price is not known."""
        prices = self._of(model)
        if prices is None:
            return None
        dollars = sum(int(getattr(tokens, name)) * float(prices[name]) for name in _PRICES)
        return dollars / _MILLION

    def shows_thoughts(self, model: str) -> bool:
        """Whether a model takes, and needs, to be asked for its thoughts."""
        return (self._of(model) or {}).get("adaptive_thinking") is True

    def _of(self, model: str) -> Mapping[str, Any] | None:
        return self.table.get(_DATED.sub("", model))
