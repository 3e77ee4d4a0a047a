"""A limit on failed authentications, by the caller's address.

Each address has a budget of failures that refills with time. While it is used up, unknown callers from there are told
when to try again, and of them little is logged and recorded. Who is known is let in whatever comes from its address.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from services.common.errors import Exhausted
from services.common.rpc.peers import address_of

TOO_MANY_FAILURES: Final = "TOO_MANY_FAILURES"
MAX_FAILURES: Final = 100
"""How many failures an address may have at once: more than a team's programs that all got a wrong token."""

_SECONDS_EACH: Final = 1.0
_MAX_ADDRESSES: Final = 10_000
_LOGGED_EVERY_SECONDS: Final = 60.0

log = structlog.get_logger()


class TooManyFailuresError(Exhausted):
    """The caller's address has too many failures. `is_told` is True when it was logged within the last minute."""

    def __init__(self, address: str, seconds: float, *, is_told: bool) -> None:
        super().__init__(
            "TOO_MANY_FAILURES",
            f"too many calls from {address} showed no token that is known: look there for a program with an old one",
            retry_after=seconds,
            metadata={"address": address},
        )
        self.is_told = is_told


@dataclass(slots=True)
class _Address:
    empty_until: float
    """When its budget is full again, without more failures."""
    refused: int = 0
    last_logged: float = float("-inf")


class FailureLimiter:
    """Counts failures by address, for the 10,000 addresses that failed last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def check(self, peer: str) -> None:
        """Raise TooManyFailuresError when no more failures are allowed now; `peer` is as in `Credentials`."""
        address = address_of(peer)
        known = self._addresses.get(address)
        now = self._clock()
        wait = 0.0 if known is None else known.empty_until - now - (MAX_FAILURES - 1) * _SECONDS_EACH
        if known is None or wait <= 0:
            return
        known.refused += 1
        is_told = now - known.last_logged < _LOGGED_EVERY_SECONDS
        if not is_told:
            log.warning("refusing unknown callers without a check", address=address, refused=known.refused)
            known.last_logged, known.refused = now, 0
        raise TooManyFailuresError(address, wait, is_told=is_told)

    def note(self, peer: str) -> None:
        """Count a failure, or raise as `check` does."""
        self.check(peer)
        address, now = address_of(peer), self._clock()
        known = self._addresses.setdefault(address, _Address(now))
        known.empty_until = max(known.empty_until, now) + _SECONDS_EACH
        self._addresses.move_to_end(address)
        if len(self._addresses) > _MAX_ADDRESSES:
            self._addresses.popitem(last=False)
