"""The descriptors that a run's events come from. They are left unread while its log has no room: the program waits."""

import math
import selectors
import time
from collections.abc import Callable

from services.execution.eventlog import EventWriter

_PUSH_S = 0.5


class Sources:
    """What is read of a program, in a selector that has other descriptors too; its data is what to call."""

    def __init__(self, selector: selectors.BaseSelector, writer: EventWriter) -> None:
        self._selector = selector
        self._writer = writer
        self._open: dict[int, Callable[[], object]] = {}
        self._push_at = math.inf

    @property
    def is_paused(self) -> bool:
        """True while nothing is read."""
        return self._push_at < math.inf

    def add(self, fd: int, then: Callable[[], object]) -> None:
        """Call `then` whenever the descriptor is readable and may be read."""
        self._open[fd] = then
        if not self.is_paused:
            self._selector.register(fd, selectors.EVENT_READ, then)

    def remove(self, fd: int) -> None:
        """Let go of a descriptor that has come to its end."""
        del self._open[fd]
        if not self.is_paused:
            self._selector.unregister(fd)

    def due(self) -> float:
        """When to call `mind`, on the monotonic clock; infinite while the log has room."""
        return self._push_at

    def mind(self) -> None:
        """Stop reading when the log has no room; write what waits and read again when it has."""
        now = time.monotonic()
        if self.is_paused and now < self._push_at:
            return
        has_room = self._writer.push()
        if has_room == self.is_paused:
            for fd, then in self._open.items():
                if has_room:
                    self._selector.register(fd, selectors.EVENT_READ, then)
                else:
                    self._selector.unregister(fd)
        self._push_at = math.inf if has_room else now + _PUSH_S
