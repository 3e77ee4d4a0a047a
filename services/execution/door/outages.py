"""How a door waits for models that do not answer, so that agents notice nothing of what passes soon."""

import random
import time
from dataclasses import dataclass
from typing import Final

FIRST_BYTE_S: Final = 120.0
"""How long a provider may say nothing before a stream begins, unless somebody sets it."""
START_PATIENCE_S: Final = 10.0
"""How long nobody may be reached at the beginning, where what is wrong will hardly pass by itself."""

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 8.0
_FORGOTTEN_AFTER_S: Final = 60.0
_SPREAD_S: Final = 1.0

Gate = tuple[str, int, str]
"""What a provider limits: the provider, the number of its key, and the model."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a model has not answered a request; `status` is what its agent is told in the end."""

    text: str
    provider: str
    status: int
    is_refusal: bool = False
    """True when the same request would be refused again."""
    is_unreached: bool = False
    """True when no HTTP answer came at all."""
    pause_s: float | None = None
    """For how long the provider wants to be left alone, from now on; None when it does not say."""
    reason: str = ""
    """Why whoever started the execution does not grant it, from the catalogue of reasons; empty for all else."""
    is_over: bool = True
    """True when the agent is told; False while the door waits, and asks again."""


class Outages:
    """What one door knows of its providers' outages.

    An outage begins with the first request that is not answered, and ends with an answer, or when nothing is asked.
    """

    def __init__(self, patience_s: float, first_byte_s: float = FIRST_BYTE_S) -> None:
        """`patience_s` is how long an outage is waited out, `first_byte_s` how long a stream's beginning."""
        self.first_byte_s = first_byte_s
        self._patience_s = patience_s
        self._has_answered = False
        self._since: float | None = None
        self._seen = 0.0
        self._opens: dict[Gate, float] = {}

    @property
    def has_gates(self) -> bool:
        """True when somebody wants to be left alone, or wanted to a moment ago."""
        return bool(self._opens)

    def answered(self) -> bool:
        """Note that a provider answers; return True when that ends an outage."""
        self._has_answered = True
        was_out, self._since = self._since is not None, None
        return was_out

    def close(self, gate: Gate, seconds: float) -> None:
        """Let nobody through for as long as a provider has asked for."""
        self._opens[gate] = time.monotonic() + seconds + random.uniform(0, _SPREAD_S)  # noqa: S311 - no secret

    def opens_in(self, gate: Gate) -> float:
        """Return in how many seconds requests may be sent again: 0 for now."""
        seconds = self._opens.get(gate, 0.0) - time.monotonic()
        if seconds > 0:
            return seconds
        self._opens.pop(gate, None)
        return 0.0

    def pause(self, trouble: Trouble) -> float | None:
        """Return how many seconds to wait before a request is sent again; None when it has been waited long enough."""
        now = time.monotonic()
        if self._since is None or now > self._seen + _FORGOTTEN_AFTER_S:
            self._since = now
        self._seen = now
        if trouble.is_refusal:
            return None
        patience_s = self._patience_s
        if trouble.is_unreached and not self._has_answered:
            patience_s = min(patience_s, START_PATIENCE_S)
        left = self._since + patience_s - now
        if left <= 0 or (trouble.pause_s is not None and trouble.pause_s > left):
            return None
        pause = trouble.pause_s
        if pause is None:
            longest = min(max(_FIRST_PAUSE_S, (now - self._since) / 2), _LONGEST_PAUSE_S, left)
            pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._seen = now + pause
        return pause


def about(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
