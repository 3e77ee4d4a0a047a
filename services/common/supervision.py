"""What a service may ask of the process that started it and keeps it alive: to stop the cell, or to restart it."""

import os
import signal
from typing import Final

STOP_SIGNAL: Final = signal.SIGTERM
END_AGENTS_SIGNAL: Final = signal.SIGUSR1
"""Stop, and end the agents too."""
RESTART_SIGNAL: Final = signal.SIGUSR2
"""Restart the services; agents go on."""

LIFELINE_VARIABLE: Final = "BOATYARD_LIFELINE_FD"
"""The environment variable that only a supervisor sets: the end of a pipe, by which a service knows that it lives."""


class Supervisor:
    """The process that started this one, if it supervises it. Made at the start, while the environment says so."""

    def __init__(self) -> None:
        self._pid = os.getppid() if LIFELINE_VARIABLE in os.environ else None

    def tell(self, command: signal.Signals) -> bool:
        """Give a command; return False when there is no supervisor, or it is gone, and this process about to end."""
        if self._pid is None or os.getppid() != self._pid:
            return False
        os.kill(self._pid, command)
        return True
