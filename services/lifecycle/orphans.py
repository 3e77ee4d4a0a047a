"""What is left on a machine of attempts that were taken from it: agents that still run, workspaces in use.

Whoever loses a lease touches nothing more of the job, and the one who has it now works on another machine. So each
machine looks, every now and then, for what nobody on it carries any more, and ends that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from services.common.errors import ServiceError
from services.lifecycle.model.outcome import RetentionPeriods
from services.lifecycle.model.states import Retention
from services.lifecycle.nodes import NodeInventory
from services.lifecycle.run import workspace_of

_AGAIN_SECONDS = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How this machine stands to a job: `execution_id` is the attempt that is carried on it, or is to be; or empty."""

    execution_id: str
    retention: Retention


JobStatuses = Callable[[Collection[str]], Awaitable[Mapping[str, JobStatus]]]
"""Returns the standing of those jobs that are known, by id. What is of another is nobody's business here."""


class OrphanReaper:
    """Ends what is left on a machine. What it does may be done twice, and by several at once."""

    def __init__(self, machine: NodeInventory, standings: JobStatuses, keeping: RetentionPeriods) -> None:
        self._machine = machine
        self._standings = standings
        self._keeping = keeping

    async def keep_ended(self, every_seconds: float) -> None:
        """Look every now and then, until cancelled; soon again while something is just ending."""
        while True:
            found = 0
            try:
                found = await self.end()
            except ServiceError as error:  # a node service or the database is away
                log.info("what others have taken over is looked for later", reason=error.reason, error=error.message)
            except Exception:  # the loop outlives whatever one round met
                log.exception("could not look for what others have taken over")
            await asyncio.sleep(min(_AGAIN_SECONDS, every_seconds) if found else every_seconds)

    async def end(self) -> int:
        """Ask what is left to end, and let go of what has; return how much there was. Raises ServiceError."""
        # In this order: what is there when it is listed was begun before anybody is asked whose it is.
        executions, workspaces = await self._machine.executions(), await self._machine.workspaces()
        standings = await self._standings({each.job_id for each in (*executions, *workspaces)})
        left = 0
        for each in executions:
            if each.job_id in standings and not _is_of(each.thing_id, standings[each.job_id].execution_id):
                log.warning("ending what another cell has taken over", job_id=each.job_id, execution_id=each.thing_id)
                await self._machine.stop(each.thing_id)
                left += 1
        busy = {each.job_id for each in executions}
        for each in workspaces:
            standing = standings.get(each.job_id)
            if standing is None or _is_of(each.thing_id, workspace_of(standing.execution_id)):
                continue
            left += 1
            if each.job_id not in busy:
                await self._let_go(each.thing_id, standing)
        return left

    async def _let_go(self, workspace_id: str, standing: JobStatus) -> None:
        """Remove a workspace, or keep it as one of a failed job: the only copy of what the agent did is in it."""
        keep_seconds = 0.0 if standing.retention is Retention.REMOVE else self._keeping.failed
        log.warning("letting go of a workspace whose job goes on elsewhere", workspace_id=workspace_id)
        try:
            await self._machine.close(workspace_id, keep_seconds)
        except ServiceError as error:  # a sandbox may be in it until just now
            log.info("a workspace is let go of later", workspace_id=workspace_id, error=error.message)


def _is_of(thing_id: str, attempt_id: str) -> bool:
    """Whether something is an attempt's own: checks and hooks have ids made of the agent's."""
    return thing_id == attempt_id or thing_id.startswith(f"{attempt_id}-")
