"""Orphans: what attempts that another machine has taken over left here, running agents and workspaces in use.

A driver that loses a lease changes nothing more of the job, and the new owner works on another machine. So each machine
regularly looks for what no driver on it runs any more, and ends that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from services.common.errors import ServiceError
from services.lifecycle.model.ids import workspace_of
from services.lifecycle.model.outcome import RetentionPeriods
from services.lifecycle.model.states import Retention
from services.lifecycle.nodes import NodeInventory

_AGAIN_SECONDS = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of a job on this machine: `execution_id` is its attempt that runs or will run here; empty for none."""

    execution_id: str
    retention: Retention


JobStatuses = Callable[[Collection[str]], Awaitable[Mapping[str, JobStatus]]]
"""Returns the status of jobs by id. Unknown jobs are left out, and what belongs to them is left alone."""


class OrphanReaper:
    """Ends the orphans on a machine. It may run twice, and several may run at once."""

    def __init__(self, machine: NodeInventory, statuses: JobStatuses, retention_periods: RetentionPeriods) -> None:
        self._machine = machine
        self._statuses = statuses
        self._retention_periods = retention_periods

    async def run(self, every_seconds: float) -> None:
        """Look for orphans regularly until cancelled; sooner again while some are still ending."""
        while True:
            found = 0
            try:
                found = await self.end()
            except ServiceError as error:  # a node service or the database is away
                log.info("what others have taken over is looked for later", reason=error.reason, error=error.message)
            except Exception:  # one failed round must not end the loop
                log.exception("could not look for what others have taken over")
            await asyncio.sleep(min(_AGAIN_SECONDS, every_seconds) if found else every_seconds)

    async def end(self) -> int:
        """Stop orphaned executions and release the workspaces of ended ones; return how many there were.

        Raises ServiceError.
        """
        # In this order: whatever is listed was begun before the jobs' status is read.
        executions, workspaces = await self._machine.executions(), await self._machine.workspaces()
        statuses = await self._statuses({each.job_id for each in (*executions, *workspaces)})
        left = 0
        for each in executions:
            if each.job_id in statuses and not _is_of(each.thing_id, statuses[each.job_id].execution_id):
                log.warning("ending what another cell has taken over", job_id=each.job_id, execution_id=each.thing_id)
                await self._machine.stop(each.thing_id)
                left += 1
        busy = {each.job_id for each in executions}
        for each in workspaces:
            status = statuses.get(each.job_id)
            if status is None or _is_of(each.thing_id, workspace_of(status.execution_id)):
                continue
            left += 1
            if each.job_id not in busy:
                await self._let_go(each.thing_id, status)
        return left

    async def _let_go(self, workspace_id: str, status: JobStatus) -> None:
        """Remove a workspace, or keep it like that of a failed job: it has the only copy of the agent's work."""
        keep_seconds = 0.0 if status.retention is Retention.REMOVE else self._retention_periods.failed
        log.warning("letting go of a workspace whose job goes on elsewhere", workspace_id=workspace_id)
        try:
            await self._machine.close(workspace_id, keep_seconds)
        except ServiceError as error:  # a sandbox may have been in it until just now
            log.info("a workspace is let go of later", workspace_id=workspace_id, error=error.message)


def _is_of(thing_id: str, attempt_id: str) -> bool:
    """True when something belongs to an attempt: the ids of its checks and hooks start with the agent's."""
    return thing_id == attempt_id or thing_id.startswith(f"{attempt_id}-")
