"""Keeps one service alive."""

import asyncio
import time
from collections.abc import Callable

from services.common.errors import StartError
from services.common.lock import LockHeldError
from services.common.program import EXIT_AWAY, EXIT_CANNOT_START, EXIT_TRY_AGAIN
from services.common.room import is_out_of_room
from services.supervisor.plan import CellPlan
from services.supervisor.process import ServiceProcess, log_tail

Say = Callable[[str], None]
"""Prints a line for the person at the terminal."""

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
GIVE_UP_AFTER = 8
WELL_AFTER_S = 30.0
"""How long a service must run until its earlier deaths no longer count."""


_WAITED_FOR = {EXIT_TRY_AGAIN: "the disk has no room", EXIT_AWAY: "its database is away"}


class ServiceKeeper:
    """Starts a service, and restarts it with growing delays when it dies, until it is stopped."""

    def __init__(self, cell: CellPlan, service: str, lifeline: int, say: Say) -> None:
        self._cell = cell
        self._service = service
        self._lifeline = lifeline
        self._say = say
        self._process: ServiceProcess | None = None
        self._stopping = False
        self._restarting = False

    async def run(self) -> None:
        """Keep the service alive until `stop`. Raises StartError when it cannot start, or dies again and again.

        A failed start is final only the first time: later the reason may be a database that is away for a while. A
        service for which the disk has no room is started until there is some, and one that was well, whose database is
        away, until that is back.
        """
        deaths, is_first, was_well = 0, True, False
        while not self._stopping:
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping:
                return
            if self._restarting:
                self._restarting = is_first = False
                continue
            is_well = time.monotonic() - began > WELL_AFTER_S
            deaths, was_well = 1 if is_well else deaths + 1, was_well or is_well
            if code == EXIT_TRY_AGAIN or (was_well and code == EXIT_AWAY):
                deaths = min(deaths, GIVE_UP_AFTER - 1)
            if (is_first and code == EXIT_CANNOT_START) or deaths >= GIVE_UP_AFTER:
                raise StartError(self._failure(code))
            is_first = False
            delay = min(FIRST_DELAY_S * 2 ** (deaths - 1), LONGEST_DELAY_S)
            why = _WAITED_FOR.get(code) or _cause(code)
            self._say(f"{self._service} ended ({why}); restarting it in {delay:g} s")
            await asyncio.sleep(delay)

    async def restart(self) -> None:
        """Stop the service, and start it again at once. Returns when the process before has ended."""
        if self._process is not None and not self._stopping:
            self._restarting = True
            await self._process.stop()

    async def stop(self) -> None:
        """Stop the service, and do not restart it."""
        self._stopping = True
        if self._process is not None:
            await self._process.stop()

    async def _run_once(self) -> int:
        try:
            self._process = await ServiceProcess.start(self._cell, self._service, self._lifeline)
        except LockHeldError as error:
            raise StartError(
                f"an earlier {self._service} service (process {error.pid}) is still running: kill it"
            ) from None
        except OSError as error:
            if not is_out_of_room(error):
                raise
            return EXIT_TRY_AGAIN
        if self._stopping:  # `stop` was called while it was being started
            await self._process.stop()
        return await self._process.wait()

    def _failure(self, code: int) -> str:
        log = self._cell.log_file(self._service)
        last_lines = log_tail(log).splitlines()[-10:]
        ends = [number for number, line in enumerate(last_lines) if line.startswith(f"boatyard {self._service}: ")]
        if code == EXIT_CANNOT_START and ends:  # it says all there is to say; what is before may be of another start
            return "\n".join(last_lines[ends[-1] :]).removeprefix("boatyard ")
        return "\n".join([f"{self._service} does not start ({_cause(code)}); the end of its log, {log}:", *last_lines])


def _cause(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
