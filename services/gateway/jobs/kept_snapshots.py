"""Finds out, before a job is accepted, whether the snapshot that it is to begin from is still kept."""

from collections.abc import Awaitable, Callable
from typing import Any

from boatyard.gateway.v1 import runtime_pb2
from grpc import aio

from services.common.errors import FailedPrecondition, NotFound, Unavailable

GetSnapshot = Callable[[runtime_pb2.GetSnapshotRequest, aio.ServicerContext[Any, Any]], Awaitable[object]]
"""The RPC of AgentRuntimeService, which asks the cell that has the snapshot."""


async def is_gone(get: GetSnapshot, snapshot_id: str, context: aio.ServicerContext[Any, Any]) -> bool:
    """Return True when no cell has the snapshot; where the one that may have it cannot be asked, its job finds out."""
    try:
        await get(runtime_pb2.GetSnapshotRequest(snapshot_id=snapshot_id), context)
    except NotFound:
        return True
    except (Unavailable, FailedPrecondition, aio.AioRpcError):
        return False
    return False


def snapshot_gone(snapshot_id: str) -> NotFound:
    """Return the error for a job that is to begin from such a snapshot."""
    because = "it was deleted, or its time was over; `boatyard snapshots` lists those that are kept"
    return NotFound("snapshot", snapshot_id, because=because)
