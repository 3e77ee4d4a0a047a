"""How often callers may show a token that nobody knows, by where they call from: what is too much is not looked at.

Each address has a store of failures that fills up again with time. While it is empty, calls from there are refused
before anything is asked about their tokens; but whoever can be known without asking is let in all the same. So a flood
costs its neighbours behind one address (a proxy, this machine) patience while they are new, and nothing else.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Final
from urllib.parse import unquote

import structlog

from services.common.errors import Exhausted

TOO_MANY_FAILURES: Final = "TOO_MANY_FAILURES"
MAX_FAILURES: Final = 100
"""How often an address may fail at once: more than the programs of a team that were all given a wrong token do."""

_SECONDS_EACH: Final = 1.0
_MAX_ADDRESSES: Final = 10_000
_TOLD_EVERY_SECONDS: Final = 60.0

log = structlog.get_logger()


class TooManyFailuresError(Exhausted):
    """Where the caller calls from, too many have failed. `is_told`: the like was told of it within a minute."""

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
    """When its store is full again, if nobody fails any more."""
    refused: int = 0
    told: float = float("-inf")


class FailureLimiter:
    """Knows how often addresses have failed; of 10,000 at most, then of those that failed last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def check(self, peer: str) -> None:
        """Raise TooManyFailuresError where no other failure is allowed now; `peer` is as in `Credentials`."""
        address = address_of(peer)
        known = self._addresses.get(address)
        now = self._clock()
        wait = 0.0 if known is None else known.empty_until - now - (MAX_FAILURES - 1) * _SECONDS_EACH
        if known is None or wait <= 0:
            return
        known.refused += 1
        is_told = now - known.told < _TOLD_EVERY_SECONDS
        if not is_told:
            log.warning("callers that nobody knows are not looked at", address=address, refused=known.refused)
            known.told, known.refused = now, 0
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


def address_of(peer: str) -> str:
    """Return whose failures are counted together: an IPv4 address, or the /64 that one customer has of IPv6.

    Of ipv4:127.0.0.1:40312 it is 127.0.0.1, of ipv6:%5B2001:db8::1%5D:40312 2001:db8::/64; unix sockets are one.
    """
    kind, _, place = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind
    host = place.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv4Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
