"""What befalls the cells and their database: which process is killed, stopped or restarted next, a seed decides."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.kit.chaos.fleet import LEASE_SECONDS, Fleet
from tests.kit.chaos.machines import FleetCell, FleetCoordinator, bring_down, pause
from tests.kit.link import Link

OUTAGE_SECONDS = 20.0


@dataclass
class FaultRecord:
    """What was done."""

    began: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    runners_killed: set[str] = field(default_factory=set)
    """Executions whose runner was killed, by itself or with its machine."""
    lost_for_good: dict[str, float] = field(default_factory=dict)
    """{cell id: when, in seconds since 1970}."""

    def note(self, cell: FleetCell | None, what: str, more: str = "") -> None:
        self.counts[what] += 1
        where = cell.name if cell else "database"
        self.lines.append(f"{time.monotonic() - self.began:7.1f} s  {where:8} {what} {more}".rstrip())


class FaultInjector:
    """Deals blows, each cell's one after the other, until cancelled; what was begun is mended first."""

    def __init__(self, fleet: Fleet, rng: random.Random, *, every_seconds: float) -> None:
        self.record = FaultRecord()
        self._fleet = fleet
        self._rng = rng
        self._every_seconds = every_seconds
        self._stopping = asyncio.Event()
        self._hands = {cell.name: asyncio.Lock() for cell in fleet.machines}

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    async def rain(self) -> None:
        """Deal blows to every cell until told to stop; then all that lives is up."""
        hands = [(cell, random.Random(self._rng.random())) for cell in self._fleet.machines]
        dealt = await asyncio.gather(*(self._befall(cell, rng) for cell, rng in hands), return_exceptions=True)
        for failed in filter(None, dealt):
            raise failed

    async def cut_off_the_database(self, times: int, seconds: float) -> None:
        """Stop the database, or let it hang, `times` times, at equal distances within `seconds`."""
        database = self._fleet.database
        assert database
        for number in range(times):
            await self._wait(seconds / (times + 1))
            outage = (database.away, database.hanging)[number % 2]
            self.record.note(None, f"begins to be {outage.__name__}")
            with outage():
                await self._wait(OUTAGE_SECONDS)
            self.record.note(None, "is back")

    async def lose_for_good(self, cell: FleetCell) -> None:
        """End a machine that never comes back."""
        async with self._hands[cell.name]:
            cell.is_gone = True
            cell_id = await asyncio.to_thread(cell.cell_id)
            await asyncio.to_thread(self._lose, cell)
            self.record.lost_for_good[cell_id] = time.time()
            self.record.note(cell, "lost for good")

    async def _befall(self, cell: FleetCell, rng: random.Random) -> None:
        blows: dict[Callable[[FleetCell, random.Random], None], int] = {
            self._kill_service: 10,
            self._kill_runner: 6,
            self._pause_driver: 2,
            self._pause_service: 3,
            self._pause_runner: 1,
            self._kill_supervisor: 1,
            self._restart: 1,
            self._lose_and_mend: 1,
        }
        if isinstance(cell, FleetCoordinator):
            blows |= {self._break_links: 8}
        while not self._stopping.is_set():
            await self._wait(rng.expovariate(1 / self._every_seconds))
            async with self._hands[cell.name]:
                if self._stopping.is_set() or cell.is_gone:
                    break
                (blow,) = rng.choices(list(blows), list(blows.values()))
                with contextlib.suppress(ProcessLookupError):
                    await asyncio.to_thread(blow, cell, rng)
                if cell.has_given_up():
                    self.record.note(cell, "`up` gave up")
                    await asyncio.to_thread(cell.bring_up)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # Each of these blocks, in a thread.

    def _kill_service(self, cell: FleetCell, rng: random.Random) -> None:
        (service,) = rng.choices((cell.driver, "execution", "git", "workspace"), (4, 3, 2, 2))
        if (pid := cell.pid(service)) is not None:
            os.kill(pid, signal.SIGKILL)
            self.record.note(cell, f"kill {service}")

    def _kill_runner(self, cell: FleetCell, rng: random.Random) -> None:
        if runners := sorted(cell.runners().items()):
            pid, execution_id = rng.choice(runners)
            self.record.runners_killed.add(execution_id)  # before it is: it may be noticed at once
            os.kill(pid, signal.SIGKILL)
            self.record.note(cell, "kill runner", execution_id)

    def _pause_driver(self, cell: FleetCell, rng: random.Random) -> None:
        self._pause(cell, cell.driver, rng.uniform(1.2, 2.5) * LEASE_SECONDS)

    def _pause_service(self, cell: FleetCell, rng: random.Random) -> None:
        self._pause(cell, rng.choice((cell.driver, "workspace", "git", "execution")), rng.uniform(1, LEASE_SECONDS - 1))

    def _pause(self, cell: FleetCell, service: str, seconds: float) -> None:
        if (pid := cell.pid(service)) is not None:
            past = " past its lease" if service == cell.driver and seconds > LEASE_SECONDS else ""
            self.record.note(cell, f"pause {service}{past}", f"for {seconds:.1f} s")
            pause(pid, seconds)

    def _pause_runner(self, cell: FleetCell, rng: random.Random) -> None:
        if runners := sorted(cell.runners().items()):
            pid, execution_id = rng.choice(runners)
            self.record.note(cell, "pause runner", execution_id)
            pause(pid, rng.uniform(1, 5))

    def _break_links(self, cell: FleetCell, rng: random.Random) -> None:
        """Cut a coordinator off, with or without a word, for less than its lease or for more; or one link of it."""
        assert isinstance(cell, FleetCoordinator)
        fail = rng.choice((Link.cut, Link.silence, Link.forget))
        links = rng.choice((cell.links, cell.links[:1]))
        seconds = rng.uniform(0.3, 2.5) * LEASE_SECONDS
        self.record.note(cell, f"{fail.__name__} links", f"{len(links)} for {seconds:.1f} s")
        for link in links:
            fail(link)
        time.sleep(seconds)
        for link in links:
            link.mend()

    def _kill_supervisor(self, cell: FleetCell, rng: random.Random) -> None:
        assert cell.process
        self.record.note(cell, "kill up")
        cell.process.kill()
        time.sleep(rng.uniform(0, 8))  # its services end by themselves, some of them before the next one comes
        cell.bring_up()

    def _restart(self, cell: FleetCell, rng: random.Random) -> None:
        self.record.note(cell, "restart up")
        bring_down(cell)
        time.sleep(rng.uniform(0, 2))
        cell.bring_up()

    def _lose_and_mend(self, cell: FleetCell, rng: random.Random) -> None:
        self.record.note(cell, "kill all of the machine")
        self._lose(cell)
        time.sleep(rng.uniform(0, 2 * LEASE_SECONDS))
        cell.bring_up()

    def _lose(self, cell: FleetCell) -> None:
        for _ in range(2):  # one may have begun meanwhile
            self.record.runners_killed.update(cell.runners().values())
            cell.lose()
