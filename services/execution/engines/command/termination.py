"""How a program is ended: it is asked to end as soon as it can be asked, and killed when its grace period is over."""

import math
import time
from collections.abc import Callable

from services.execution.model import Reason
from services.execution.processes.agent import Agent

GRACE_S = 5.0
"""The seconds that a program has to end by itself when nobody has said how long."""

_RETRY_S = 0.01


class Termination:
    """The forced end of a program, if there is one."""

    def __init__(self, ask: Callable[[Agent], bool] = Agent.terminate) -> None:
        """`ask` asks the program to end, and returns False when it is not there yet."""
        self._ask = ask
        self.has_begun = False
        self.killed = False
        self.cause: Reason | None = None
        """Why we end the program; None when we were asked to."""
        self._ask_at = self._kill_at = math.inf

    def begin(self, cause: Reason | None, grace_s: float, *, ask_in_s: float = 0.0) -> None:
        """Begin to end the program, or shorten the grace period if that has begun already."""
        now = time.monotonic()
        if not self.has_begun:
            self.has_begun, self.cause, self._ask_at = True, cause, now + ask_in_s
        self._kill_at = min(self._kill_at, now + grace_s)

    def due(self) -> float:
        """When to call `advance`, on the monotonic clock; infinite while there is nothing to do."""
        return math.inf if self.killed else min(self._ask_at, self._kill_at)

    def advance(self, program: Agent) -> None:
        """Do whatever is due."""
        now = time.monotonic()
        if self.killed or now < self.due():
            return
        if now >= self._ask_at:
            self._ask_at = math.inf if self._ask(program) else now + _RETRY_S
        if now >= self._kill_at:
            self.killed = True
            program.kill()
