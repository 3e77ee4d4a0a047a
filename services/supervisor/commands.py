"""The signals that command a supervisor."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.supervision import END_AGENTS_SIGNAL, RESTART_SIGNAL


class SupervisorCommands:
    """The commands to stop, to end the agents too, and to restart. An event that is set stays set, but `restart`."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.end_agents = asyncio.Event()
        self.restart = asyncio.Event()
        """The services are to be restarted; cleared by whoever does it."""
        self.by_hand = False
        """True when the command was Ctrl-C, which a person may press again."""

    @contextmanager
    def from_signals(self) -> Iterator[None]:
        """Handle signals as commands while inside."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, END_AGENTS_SIGNAL, RESTART_SIGNAL)
        for number in numbers:
            loop.add_signal_handler(number, self._take, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals) -> None:
        if number is RESTART_SIGNAL:
            self.restart.set()
            return
        if number is END_AGENTS_SIGNAL or (number is signal.SIGINT and self.stop.is_set()):
            self.end_agents.set()
        elif not self.stop.is_set():
            self.by_hand = number is signal.SIGINT
        self.stop.set()
