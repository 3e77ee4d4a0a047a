"""Coordinators of earlier versions: they are told so, and what they cannot go on with is left to others."""

import re
from importlib.metadata import version
from typing import Final

from services.common.errors import PermissionDenied
from services.gateway.cells.store import CellStore
from services.gateway.coordinators.store import CoordinatorStore
from services.gateway.values.cells import CellKind
from services.lifecycle.model.condition import Condition, Trouble
from services.lifecycle.model.outcome import Failure

EARLIER_WAIT_SECONDS: Final = 3.0
"""An earlier coordinator calls again 0.2 s after a refusal, and waits at most 5 s for it."""

_EARLIER_CLAIM: Final = re.compile("claim-[0-9a-z]{26}")
"""The request ids of claims by Boatyard's own coordinators of earlier versions; those of this one begin otherwise."""
_REASON: Final = "COORDINATOR_VERSION"


class Versions:
    """Refuses what a coordinator's version cannot do, and says so of its cell and of its jobs.

    A job whose work has begun there stays until the coordinator has been upgraded, or until it has been stopped: then
    its lease ends, and the job begins anew elsewhere.
    """

    def __init__(self, cells: CellStore, store: CoordinatorStore) -> None:
        self._cells = cells
        self._store = store

    async def can_read_jobs(self, coordinator_id: str, request_id: str) -> bool:
        """False for a coordinator of ours that reads jobs in a form which is no longer written.

        Those that read the present form also say at their start which sandboxes they allow.
        """
        if not _EARLIER_CLAIM.fullmatch(request_id):
            return True
        return await self._cells.has_said_what_it_allows(coordinator_id)

    async def refusal(self, coordinator_id: str, what: str, **more: str) -> PermissionDenied:
        """Return COORDINATOR_VERSION: `what` it does in another way than this gateway, and both versions."""
        refused = await self._refusal(
            coordinator_id, what, "until then it takes no jobs, and keeps those that it has begun", more
        )
        cell = await self._cells.find(coordinator_id)
        if cell is not None and cell.kind is CellKind.COORDINATOR:  # else somebody has named a gateway's cell
            await self._cells.set_condition(coordinator_id, Condition(None, (Trouble(_REASON, refused.message),)))
            await self._store.give_back(coordinator_id, Failure(_REASON, refused.message))
        return refused

    async def refusal_of_job(self, coordinator_id: str, job_id: str, what: str) -> PermissionDenied:
        """Return COORDINATOR_VERSION for one job: `what` the coordinator cannot do that it needs."""
        refused = await self._refusal(coordinator_id, what, "until then the job is for other cells", {})
        await self._store.give_back(coordinator_id, Failure(_REASON, refused.message), job_id)
        return refused

    async def _refusal(self, coordinator_id: str, what: str, until: str, more: dict[str, str]) -> PermissionDenied:
        cell = await self._cells.find(coordinator_id)
        theirs, ours = "unknown" if cell is None else cell.version or "unknown", version("boatyard")
        who = f"coordinator {coordinator_id!r} (version {theirs})"
        return PermissionDenied(
            f"{who} {what} (version {ours}): upgrade the coordinator; {until}",
            reason=_REASON,
            metadata={"coordinator_id": coordinator_id, "coordinator_version": theirs, "gateway_version": ours} | more,
        )
