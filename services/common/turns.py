"""Whose turn it is: what calls have to wait for is given to their callers in turn, and not to calls in their order.

So a caller with a hundred calls that wait makes another's one call wait for one of them, and not for a hundred.
"""

import asyncio
from collections import OrderedDict, deque
from contextvars import ContextVar
from typing import Generic, TypeVar

OURSELVES = ""
"""The caller for whom the service does work of its own, such as a driver's."""

_CURRENT: ContextVar[str] = ContextVar("boatyard_turns_of", default=OURSELVES)

Waiter = TypeVar("Waiter")


def current_turns() -> str:
    """Return whose turn is used by the work of this task; OURSELVES for work that no call began."""
    return _CURRENT.get()


def set_current_turns(caller: str) -> None:
    """Set whose turns the rest of this task uses: for the server's layers, and tasks that work for several callers."""
    _CURRENT.set(caller)


class Line(Generic[Waiter]):
    """Those who wait for something, each for a caller: a caller's in their order, and callers in turn."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Waiter]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, caller: str, waiter: Waiter) -> None:
        """Wait, behind the others of the same caller."""
        self._waiting.setdefault(caller, deque()).append(waiter)

    def pop(self) -> Waiter:
        """Remove and return whose turn it is; its caller is the last to have one again. Raises KeyError for none."""
        caller, waiting = self._waiting.popitem(last=False)
        waiter = waiting.popleft()
        if waiting:
            self._waiting[caller] = waiting
        return waiter

    def remove(self, caller: str, waiter: Waiter) -> None:
        """Wait no longer, if it still does."""
        waiting = self._waiting.get(caller)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[caller]


class Pace:
    """Lets work begin `per_second` times a second, and up to `burst` at once after a pause, callers in turn."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._each = 1 / per_second
        self._burst = burst * self._each
        self._paid_until = float("-inf")
        self._line: Line[asyncio.Future[None]] = Line()
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self, caller: str) -> None:
        """Wait for the turn of a caller."""
        now = asyncio.get_running_loop().time()
        if not self._line and self._may_begin(now):
            return
        waiter = asyncio.get_running_loop().create_future()
        self._line.add(caller, waiter)
        self._set_timer()
        try:
            await waiter
        except asyncio.CancelledError:
            self._line.remove(caller, waiter)
            raise

    def _may_begin(self, now: float) -> bool:
        """Take one of the times a second, if there is one now."""
        if self._paid_until - self._burst > now:
            return False
        self._paid_until = max(self._paid_until, now) + self._each
        return True

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._paid_until - self._burst, self._serve)

    def _serve(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._line and self._may_begin(now):
            waiter = self._line.pop()
            if not waiter.done():
                waiter.set_result(None)
        if self._line:
            self._set_timer()
