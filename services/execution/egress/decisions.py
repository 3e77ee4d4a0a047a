"""Reports decisions to the runner, each as a line of JSON, and no more of them than a person can use."""

import json
import os
import time
from collections.abc import Callable

_RATE_PER_SECOND = 20.0
_BURST = 200.0
_HOST_CHARACTERS = 253


class Decisions:
    """Writes decisions to a descriptor: the first 200 at once, then at most 20 a second, and counts those left out."""

    def __init__(self, fd: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._clock = clock
        self._allowance = _BURST
        self._refilled_at = clock()
        self._omitted = 0

    def report(self, host: str, port: int, *, allowed: bool, reason: str) -> None:
        """Report a decision. `reason` is one of the contract's; `port` is 53 when a name was to be resolved."""
        now = self._clock()
        self._allowance = min(_BURST, self._allowance + (now - self._refilled_at) * _RATE_PER_SECOND)
        self._refilled_at = now
        if self._allowance < 1:
            self._omitted += 1
            return
        self._allowance -= 1
        fields = {"host": host[:_HOST_CHARACTERS], "port": port, "allowed": allowed, "reason": reason}
        line = json.dumps({**fields, "omitted": self._omitted}).encode() + b"\n"
        try:
            os.write(self._fd, line)  # whole or not at all: it is shorter than PIPE_BUF
        except BlockingIOError:  # the runner is busy
            self._omitted += 1
            return
        self._omitted = 0
