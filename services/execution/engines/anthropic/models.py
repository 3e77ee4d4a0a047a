"""What the loop has to know of models; what they cost, the door knows."""

import re
from dataclasses import dataclass
from typing import Final

_ADAPTIVE_THINKING: Final = re.compile(r"claude-(?:fable|mythos|opus|sonnet)-5(?:-\d)?(?:-20\d{6})?")
"""Models that think by themselves, and show their thoughts when asked to (platform.claude.com/docs, November 2026)."""


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


def shows_thoughts(model: str) -> bool:
    """Return whether a model accepts, and needs, a request for its thinking."""
    return _ADAPTIVE_THINKING.fullmatch(model) is not None
