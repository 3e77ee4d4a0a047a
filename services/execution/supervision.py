"""Starts runners, and knows when they have ended: its own, and those that an earlier life of this service started."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

import services
from services.execution import lost
from services.execution.model import Result
from services.execution.rundir import RunDirectory

_ROOT = Path(services.__file__).parent.parent
_BEGIN_POLL_S = (0.004, 0.1)

log = structlog.get_logger()


class Supervision:
    """Stays with one run until it has a result, whoever started its runner."""

    def __init__(self, execution_id: str, run: RunDirectory, on_begin: Callable[[int], Awaitable[None]]) -> None:
        """`on_begin` gets the time, in nanoseconds since 1970, at which the program began."""
        self._execution_id = execution_id
        self._run = run
        self._on_begin = on_begin
        self._runner: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a runner. Where another already carries this run, the new one ends at once."""
        self._runner = _spawn(self._run)

    async def result(self) -> Result:
        """Wait for the end. The result is that of the runner, or ours for one that was lost."""
        begin = asyncio.create_task(self._tell_begin())
        try:
            return await self._result()
        finally:
            begin.cancel()
            await asyncio.gather(begin, return_exceptions=True)

    async def _result(self) -> Result:
        while True:
            await self._runner_ended()
            # In this order: a runner writes the result before it lets go of the lock.
            if self._run.holder() is not None:
                continue
            result = self._run.result()
            if result is not None:
                return result
            if self._runner is None and self._run.started_time_ns() is None:
                self.start()
                continue
            log.error("runner lost", execution_id=self._execution_id)
            replacement = await asyncio.to_thread(lost.conclude, self._run, self._execution_id)
            if replacement is not None:
                return replacement

    async def _runner_ended(self) -> None:
        if self._runner is not None and self._runner.returncode is None:
            await _ended(self._runner.pid, lambda: True)
            self._runner.wait()
        while (pid := self._run.holder()) is not None:
            await _ended(pid, lambda: self._run.holder() == pid)

    async def _tell_begin(self) -> None:
        interval, longest = _BEGIN_POLL_S
        while (time_ns := self._run.started_time_ns()) is None:
            await asyncio.sleep(interval)
            interval = min(interval * 1.2, longest)
        await self._on_begin(time_ns)

    def abandon(self) -> None:
        """Leave the runner to itself: it carries on, and this service's next life finds it."""
        if self._runner is not None and self._runner.returncode is None:
            self._runner.returncode = 0  # else Popen complains that nobody waits for its child


def _spawn(run: RunDirectory) -> "subprocess.Popen[bytes]":
    """Start a runner in a session of its own, with nothing of our environment: it may hold what no agent should see."""
    environment = {"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
    if home := os.environ.get("BOATYARD_HOME"):  # for people who look for the processes of a data directory
        environment["BOATYARD_HOME"] = home
    with run.diary.open("ab") as diary:
        return subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "services.execution.runner", str(run.path)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=diary,
            stderr=diary,
            start_new_session=True,
        )


async def _ended(pid: int, is_it: Callable[[], bool]) -> None:
    """Wait until a process that need not be our child has ended; `is_it` says whether the pid is still its own."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(fd, ended.set)
        if is_it():
            await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
