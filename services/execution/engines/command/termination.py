"""How a program is brought to its end: asked until it can be asked, and killed when its grace is over."""

import math
import time

from services.execution.model import Reason
from services.execution.processes.agent import Agent

GRACE_S = 5.0
"""What a program has to end in by itself, where nobody has said how long."""

_RETRY_S = 0.01


class Termination:
    """The end that we make of a program, if we do."""

    def __init__(self) -> None:
        self.has_begun = False
        self.killed = False
        self.cause: Reason | None = None
        """Why we make it; None when we were asked to."""
        self._ask_at = self._kill_at = math.inf

    def begin(self, cause: Reason | None, grace_s: float) -> None:
        """Begin to end the program, or shorten the grace of an end that has begun."""
        now = time.monotonic()
        if not self.has_begun:
            self.has_begun, self.cause, self._ask_at = True, cause, now
        self._kill_at = min(self._kill_at, now + grace_s)

    def due(self) -> float:
        """When to call `go_on`, on the monotonic clock; infinite while there is nothing to do."""
        return math.inf if self.killed else min(self._ask_at, self._kill_at)

    def go_on(self, program: Agent) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self.killed or now < self.due():
            return
        if now >= self._ask_at:
            self._ask_at = math.inf if program.terminate() else now + _RETRY_S
        if now >= self._kill_at:
            self.killed = True
            program.kill()
