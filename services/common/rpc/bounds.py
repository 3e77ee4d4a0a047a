"""How many calls a server has open at once: by class of method, and in each class by caller.

Each class has a room of its own, so that calls of one never take the place of another's, and in each room a caller has
a share. The last quarter of a room is for callers who have few calls there. What does not fit is refused at once, with
when to try again (decision 40).
"""

import asyncio
import enum
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import structlog

from services.common.errors import Exhausted
from services.common.fence import FENCE_METADATA_KEY
from services.common.rpc.call import RpcCall
from services.common.turns import OURSELVES, Pace

RETRY_SECONDS: Final = 1.0
FEW: Final = 16
"""How many calls a caller may have in a room of which three quarters are taken."""

STRANGERS_PER_SECOND: Final = 200
STRANGERS_AT_ONCE: Final = 100
"""How many calls that need no token, and refusals of those who call too much, are answered a second and at once."""

_LOGGED_EVERY_SECONDS: Final = 60.0
_MOST_DELAYED: Final = 1000

log = structlog.get_logger()


class Room(enum.StrEnum):
    """The classes of calls; the value is what a refusal calls them."""

    LOOKUPS = "calls whose token is being looked up"
    CHECKS = "health checks"
    WATCHES = "streams of health and reflection"
    CALLS = "calls"
    STREAMS = "streams"
    KEPT = "calls that keep jobs going"


@dataclass(frozen=True, slots=True)
class Share:
    """How many calls a room holds, in `total` and of `each` caller."""

    total: int
    each: int


SHARES: Final[Mapping[Room, Share]] = {
    Room.LOOKUPS: Share(total=1024, each=512),
    Room.CHECKS: Share(total=256, each=64),
    Room.WATCHES: Share(total=128, each=32),
    Room.CALLS: Share(total=1024, each=256),
    Room.STREAMS: Share(total=1024, each=128),
    Room.KEPT: Share(total=1024, each=256),
}
MOST_CALLS: Final = sum(share.total for share in SHARES.values())


class TooManyCallsError(Exhausted):
    """There is no room for the call. `is_told` is True when that was logged within the last minute."""

    def __init__(self, room: Room, share: Share, *, is_callers: bool, is_told: bool) -> None:
        who = "this caller has" if is_callers else "all callers together have"
        super().__init__(
            "TOO_MANY_CALLS",
            f"{who} as many {room} open as may be ({share.each} of one caller, {share.total} in all): end some, or try"
            " again",
            retry_after=RETRY_SECONDS,
            metadata={"each": str(share.each), "total": str(share.total)},
        )
        self.is_told = is_told


class Bounds:
    """The rooms of one server. `kept` are the names of services whose calls keep jobs going, such as heartbeats."""

    def __init__(self, kept: Collection[str] = (), shares: Mapping[Room, Share] = SHARES) -> None:
        self._kept = tuple(f"/{name}/" for name in kept)
        self._places = {room: Places(room, share) for room, share in shares.items()}
        self._delayed = 0
        self._strangers = Pace(STRANGERS_PER_SECOND, STRANGERS_AT_ONCE)

    def open(self, call: RpcCall) -> AbstractContextManager[None]:
        """Hold a place for a call. Raises TooManyCallsError when entered."""
        return self._places[self._room_of(call)].place(call.counted_by)

    async def pace(self, caller: str | None) -> None:
        """Make a call wait that needs no token, when there are many of them."""
        await self._strangers.turn(caller or OURSELVES)

    async def delay(self, caller: str | None, seconds: float = RETRY_SECONDS) -> None:
        """Make a refusal wait, and longer when there are many: who tries again at once is slowed down."""
        if self._delayed < _MOST_DELAYED:
            self._delayed += 1
            try:
                await asyncio.sleep(seconds)
                await self.pace(caller)
            finally:
                self._delayed -= 1

    def _room_of(self, call: RpcCall) -> Room:
        if call.is_open:
            return Room.CHECKS if call.answers_once else Room.WATCHES
        # Where there is one caller only, the cell, it is trusted to say that a call is for a job.
        if call.method.startswith(self._kept) or (call.counted_by is None and FENCE_METADATA_KEY in call.metadata):
            return Room.KEPT
        return Room.CALLS if call.answers_once else Room.STREAMS


class Places:
    """The places of one room."""

    def __init__(self, room: Room, share: Share) -> None:
        self._room = room
        self._share = share
        self._taken = 0
        self._open: Counter[str | None] = Counter()
        self._last_logged = float("-inf")

    def place(self, caller: str | None) -> AbstractContextManager[None]:
        """Hold a place for a caller, as `enter` says."""
        return _Place(self, caller)

    def enter(self, caller: str | None) -> None:
        """Take a place for a caller's call; for None, only the room's total counts. Raises TooManyCallsError."""
        share = self._share
        each = share.each if self._taken < share.total * 3 // 4 else min(FEW, share.each)
        is_callers = caller is not None and self._open[caller] >= each
        if is_callers or self._taken >= share.total:
            raise TooManyCallsError(self._room, share, is_callers=is_callers, is_told=self._tell(caller))
        self._taken += 1
        self._open[caller] += 1

    def leave(self, caller: str | None) -> None:
        """Give a place back."""
        self._taken -= 1
        self._open[caller] -= 1
        if not self._open[caller]:
            del self._open[caller]

    def _tell(self, caller: str | None) -> bool:
        """Log a refusal once a minute; return True when it was not."""
        now = time.monotonic()
        if now - self._last_logged < _LOGGED_EVERY_SECONDS:
            return True
        self._last_logged = now
        log.warning("refusing calls", room=self._room, caller=caller, open=self._taken)
        return False


class _Place(AbstractContextManager[None]):
    """A place in a room, inside of a block. Every call enters one, and a generator would take five times as long."""

    __slots__ = ("_caller", "_places")

    def __init__(self, places: Places, caller: str | None) -> None:
        self._places = places
        self._caller = caller

    def __enter__(self) -> None:
        self._places.enter(self._caller)

    def __exit__(self, *_: object) -> None:
        self._places.leave(self._caller)
