"""Follows a run to its end, whether this process of the service started its runner or an earlier one did."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.execution.model import Result
from services.execution.rundir.directory import MAX_LIVES, RunDirectory
from services.execution.service import lost_runs
from services.execution.service.given import GivenProviders
from services.execution.service.runners import Runner, Runners, process_ended

_BEGIN_POLL_S = (0.004, 0.1)

log = structlog.get_logger()


class Supervision:
    """Follows one run until it has a result."""

    def __init__(
        self,
        execution_id: str,
        run: RunDirectory,
        runners: Runners,
        given: GivenProviders,
        on_begin: Callable[[int], Awaitable[None]],
    ) -> None:
        """`on_begin` gets the time, in nanoseconds since 1970, at which the program began."""
        self._execution_id = execution_id
        self._run = run
        self._runners = runners
        self._given = given
        self._on_begin = on_begin
        self._runner: Runner | None = None
        self._replacements = 0

    async def result(self, *, fresh: bool) -> Result:
        """Wait for the end; return the runner's result, or ours in place of a lost runner.

        A `fresh` run has no runner yet, and gets one.
        """
        begin = asyncio.create_task(self._report_begin())
        try:
            if fresh:
                await self._start()
            return await self._result()
        finally:
            begin.cancel()
            await asyncio.gather(begin, return_exceptions=True)

    async def _result(self) -> Result:
        while True:
            await self._runner_ended()
            # In this order: a runner writes the result before it releases the lock.
            if self._run.holder() is not None:
                continue
            result = self._run.result()
            if result is not None:
                return result
            if self._runner is None and self._run.started_time_ns() is None:
                await self._start()
                continue
            if self._replacements < MAX_LIVES and self._run.may_resume():
                self._replacements += 1
                log.warning("runner lost; a new one goes on", execution_id=self._execution_id)
                await asyncio.to_thread(lost_runs.end_survivors, self._run)
                await self._start()
                continue
            log.error("runner lost", execution_id=self._execution_id)
            replacement = await asyncio.to_thread(lost_runs.conclude, self._run)
            if replacement is not None:
                return replacement

    async def _start(self) -> None:
        """Give the run to a runner when not too many others are starting: each needs a processor for a moment."""
        providers = await self._given.of(self._execution_id, are_needed=self._run.has_door())
        async with self._runners.start_slots:
            self._runner = await self._runners.start(self._run, providers)
            interval, longest = _BEGIN_POLL_S
            while self._run.holder() is None and not self._runner.has_ended():
                await asyncio.sleep(interval)
                interval = min(interval * 1.2, longest)

    async def _runner_ended(self) -> None:
        if self._runner is not None:
            await self._runner.ended()
        while (pid := self._run.holder()) is not None:
            await process_ended(pid, lambda: self._run.holder() == pid)

    async def _report_begin(self) -> None:
        interval, longest = _BEGIN_POLL_S
        while (time_ns := self._run.started_time_ns()) is None:
            await asyncio.sleep(interval)
            interval = min(interval * 1.2, longest)
        await self._on_begin(time_ns)

    def abandon(self) -> None:
        """Stop following the runner: it goes on, and the next process of this service finds it."""
        if self._runner is not None:
            self._runner.close()
