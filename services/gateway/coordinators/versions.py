"""Coordinators of earlier versions, which are told so: they wait, and keep their jobs, until they are upgraded."""

import re
from importlib.metadata import version
from typing import Final

from services.common.errors import PermissionDenied
from services.gateway.cells.store import CellStore

EARLIER_WAIT_SECONDS: Final = 3.0
"""An earlier coordinator calls again 0.2 s after a refusal, and waits at most 5 s for it."""

_EARLIER_CLAIM: Final = re.compile("claim-[0-9a-z]{26}")
"""The request ids of claims by Boatyard's own coordinators of earlier versions; those of this one begin otherwise."""


async def cannot_read_jobs(cells: CellStore, coordinator_id: str, request_id: str) -> bool:
    """True for a coordinator of ours that reads jobs in a form which is no longer written.

    Those that read the present form also say at their start which sandboxes they allow.
    """
    if not _EARLIER_CLAIM.fullmatch(request_id):
        return False
    return not await cells.has_said_what_it_allows(coordinator_id)


async def earlier_version(cells: CellStore, coordinator_id: str, what: str, **more: str) -> PermissionDenied:
    """Return COORDINATOR_VERSION: `what` the coordinator does in another way than this gateway, and both versions."""
    cell = await cells.find(coordinator_id)
    theirs, ours = "unknown" if cell is None else cell.version, version("boatyard")
    versions = {"coordinator_id": coordinator_id, "coordinator_version": theirs, "gateway_version": ours}
    return PermissionDenied(
        f"coordinator {coordinator_id!r} (version {theirs}) {what} (version {ours}): upgrade the coordinator; until"
        " then it waits, and keeps its jobs",
        reason="COORDINATOR_VERSION",
        metadata=versions | more,
    )
