"""What is done to the cells and their database; a seed decides which process is killed, paused or restarted next."""

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
from tests.kit.disks import fill, make_room, use_up_inodes
from tests.kit.link import Link

OUTAGE_SECONDS = 20.0

Fault = Callable[[FleetCell, random.Random], None]
"""Does something to a machine, and blocks until that is over."""


@dataclass
class FaultRecord:
    """The faults that were injected."""

    began: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    runners_killed: set[str] = field(default_factory=set)
    """Executions whose runner was killed, by itself or with its machine."""
    doors_killed: Counter[str] = field(default_factory=Counter)
    """How often the door of an execution was killed alone."""
    lost_for_good: dict[str, float] = field(default_factory=dict)
    """{cell id: time of the loss, in seconds since 1970}."""

    def note(self, cell: FleetCell | None, what: str, more: str = "") -> None:
        self.counts[what] += 1
        where = cell.name if cell else "database"
        self.lines.append(f"{time.monotonic() - self.began:7.1f} s  {where:8} {what} {more}".rstrip())


class FaultInjector:
    """Injects faults, one at a time into each cell, until stopped; a fault that has begun is mended first."""

    def __init__(self, fleet: Fleet, rng: random.Random, *, every_seconds: float) -> None:
        self.record = FaultRecord()
        self._fleet = fleet
        self._rng = rng
        self._every_seconds = every_seconds
        self._stopping = asyncio.Event()
        self._locks = {cell.name: asyncio.Lock() for cell in fleet.machines}

    def stop(self) -> None:
        """Begin no more faults."""
        self._stopping.set()

    async def run(self) -> None:
        """Inject faults into every cell until stopped; every cell that is not lost is up then."""
        cells = [(cell, random.Random(self._rng.random())) for cell in self._fleet.machines]
        results = await asyncio.gather(*(self._inject(cell, rng) for cell, rng in cells), return_exceptions=True)
        for error in filter(None, results):
            raise error

    async def interrupt_database(self, times: int, seconds: float) -> None:
        """Stop the database, or let it hang, `times` times, at equal intervals within `seconds`."""
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
        """Kill a machine that never comes back."""
        async with self._locks[cell.name]:
            cell.is_gone = True
            cell_id = await asyncio.to_thread(cell.cell_id)
            await asyncio.to_thread(self._lose, cell)
            self.record.lost_for_good[cell_id] = time.time()
            self.record.note(cell, "lost for good")

    async def _inject(self, cell: FleetCell, rng: random.Random) -> None:
        faults = self._faults(cell)
        while not self._stopping.is_set():
            await self._wait(rng.expovariate(1 / self._every_seconds))
            async with self._locks[cell.name]:
                if self._stopping.is_set() or cell.is_gone:
                    break
                (fault,) = rng.choices(list(faults), list(faults.values()))
                with contextlib.suppress(ProcessLookupError):
                    await asyncio.to_thread(fault, cell, rng)
                if cell.has_given_up():
                    self.record.note(cell, "`up` gave up")
                    await asyncio.to_thread(cell.bring_up)

    def _faults(self, cell: FleetCell) -> dict[Fault, int]:
        """Return what may be done to a machine, with weights."""
        faults: dict[Fault, int] = {
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
            faults |= {self._break_links: 8}
        if cell.has_small_disk:
            faults |= {self._fill_disk: 6}
        return faults

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # Each of these methods blocks, so it runs in a thread.

    def _kill_service(self, cell: FleetCell, rng: random.Random) -> None:
        (service,) = rng.choices((cell.driver, "execution", "git", "workspace"), (4, 3, 2, 2))
        if (pid := cell.pid(service)) is not None:
            os.kill(pid, signal.SIGKILL)
            self.record.note(cell, f"kill {service}")

    def _kill_driver(self, cell: FleetCell, rng: random.Random) -> None:
        if (pid := cell.pid(cell.driver)) is not None:
            os.kill(pid, signal.SIGKILL)
            self.record.note(cell, f"kill {cell.driver}")

    def _kill_zygote(self, cell: FleetCell, rng: random.Random) -> None:
        """Kill the process that forks runners."""
        if (pid := cell.zygote()) is not None:
            os.kill(pid, signal.SIGKILL)
            self.record.note(cell, "kill zygote")

    def _kill_door(self, cell: FleetCell, rng: random.Random) -> None:
        """Kill a process that passes on requests to models."""
        if doors := sorted(cell.doors().items()):
            pid, execution_id = rng.choice(doors)
            self.record.doors_killed[execution_id] += 1
            os.kill(pid, signal.SIGKILL)
            self.record.note(cell, "kill door", execution_id)

    def _kill_runner(self, cell: FleetCell, rng: random.Random) -> None:
        if runners := sorted(cell.runners().items()):
            pid, execution_id = rng.choice(runners)
            self.record.runners_killed.add(execution_id)  # before the kill, which may be noticed at once
            os.kill(pid, signal.SIGKILL)
            self.record.note(cell, "kill runner", execution_id)

    def _pause_driver(self, cell: FleetCell, rng: random.Random) -> None:
        self._pause(cell, cell.driver, rng.uniform(1.2, 2.5) * cell.lease_seconds)

    def _pause_service(self, cell: FleetCell, rng: random.Random) -> None:
        self._pause(
            cell, rng.choice((cell.driver, "workspace", "git", "execution")), rng.uniform(1, cell.lease_seconds - 1)
        )

    def _pause(self, cell: FleetCell, service: str, seconds: float) -> None:
        if (pid := cell.pid(service)) is not None:
            suffix = " past its lease" if service == cell.driver and seconds > cell.lease_seconds else ""
            self.record.note(cell, f"pause {service}{suffix}", f"for {seconds:.1f} s")
            pause(pid, seconds)

    def _pause_runner(self, cell: FleetCell, rng: random.Random) -> None:
        if runners := sorted(cell.runners().items()):
            pid, execution_id = rng.choice(runners)
            self.record.note(cell, "pause runner", execution_id)
            pause(pid, rng.uniform(1, 5))

    def _break_links(self, cell: FleetCell, rng: random.Random) -> None:
        """Break all links of a coordinator, or one, noticeably or silently, for less than its lease or for more."""
        assert isinstance(cell, FleetCoordinator)
        break_link = rng.choice((Link.cut, Link.silence, Link.forget))
        links = rng.choice((cell.links, cell.links[:1]))
        seconds = rng.uniform(0.3, 2.5) * LEASE_SECONDS
        self.record.note(cell, f"{break_link.__name__} links", f"{len(links)} for {seconds:.1f} s")
        for link in links:
            break_link(link)
        time.sleep(seconds)
        for link in links:
            link.mend()

    def _fill_disk(self, cell: FleetCell, rng: random.Random) -> None:
        """Use up the bytes or the inodes of a machine's disk for a while; something of it may die meanwhile."""
        use_up, what = rng.choice(((fill, "bytes"), (use_up_inodes, "inodes")))
        seconds = rng.uniform(0.5, 2.5) * cell.lease_seconds
        self.record.note(cell, f"use up {what}", f"for {seconds:.1f} s")
        ballast = use_up(cell.home)
        try:
            time.sleep(seconds / 2)
            rng.choice((self._kill_service, self._kill_runner, lambda *_: None))(cell, rng)
            time.sleep(seconds / 2)
        finally:
            make_room(ballast)

    def _kill_supervisor(self, cell: FleetCell, rng: random.Random) -> None:
        assert cell.process
        self.record.note(cell, "kill up")
        cell.process.kill()
        time.sleep(rng.uniform(0, 8))  # its services end by themselves, some of them before the next `up` starts
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
        for _ in range(2):  # a runner may have started meanwhile
            self.record.runners_killed.update(cell.runners().values())
            cell.kill_all()
