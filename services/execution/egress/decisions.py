"""Telling what was decided: a line of JSON each, to the runner, and no more of them than a person can use."""

import json
import os
import time
from collections.abc import Callable

_PER_SECOND = 20.0
_AT_ONCE = 200.0
_HOST_CHARACTERS = 253


class Decisions:
    """Writes decisions to a descriptor, at most 20 a second once the first 200 are gone, and counts the others."""

    def __init__(self, fd: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._clock = clock
        self._left = _AT_ONCE
        self._looked = clock()
        self._omitted = 0

    def tell(self, host: str, port: int, *, allowed: bool, reason: str) -> None:
        """Tell one. `reason` is one of the contract's; `port` is 53 where a name was asked for."""
        now = self._clock()
        self._left = min(_AT_ONCE, self._left + (now - self._looked) * _PER_SECOND)
        self._looked = now
        if self._left < 1:
            self._omitted += 1
            return
        self._left -= 1
        fields = {"host": host[:_HOST_CHARACTERS], "port": port, "allowed": allowed, "reason": reason}
        line = json.dumps({**fields, "omitted": self._omitted}).encode() + b"\n"
        try:
            os.write(self._fd, line)  # whole or not at all: it is shorter than PIPE_BUF
        except BlockingIOError:  # the runner is busy
            self._omitted += 1
            return
        self._omitted = 0
