"""The interface to a cell, which has executions, workspaces and snapshots, in the messages of the public API."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import runtime_pb2 as pb

from services.common.errors import Unavailable, peer_unavailable

EventKinds = Sequence["event_pb2.EventKind.ValueType"]


class CellUnreachable(Exception):
    """The cell cannot be reached now. `cause` is an error that the server's layers know how to report to the caller."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def cell_unavailable(cell_id: str, host: str = "") -> Unavailable:
    """Return the error for callers while the only cell that has what they ask for does not answer."""
    where = f" on {host}" if host else ""
    message = f"cell {cell_id}{where}, which has what was asked for, does not answer now"
    return peer_unavailable("CELL_UNAVAILABLE", message, {"cell_id": cell_id, "host": host})


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Some events of an execution, in order; `is_last` means that it has ended and there are no more."""

    events: tuple[event_pb2.Event, ...]
    is_last: bool
    next_sequence: int | None = None
    """The sequence to continue from after these events; None where it has not changed."""


@dataclass(frozen=True, slots=True)
class CommitRange:
    """Two commits of a repository that are to be compared."""

    repository_id: str
    base_commit_id: str
    commit_id: str


class CellClient(Protocol):
    """A cell. Methods raise a ServiceError for what it refuses, and CellUnreachable when it cannot be reached."""

    @property
    def cell_id(self) -> str:
        """The id of the cell."""
        ...

    def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: EventKinds = ()
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield an execution's events from the sequence `first` on, of some kinds or all, and empty heartbeats."""
        ...

    async def send_message(self, request: pb.SendMessageRequest) -> None:
        """Send a message to a model."""
        ...

    async def resolve_permission(self, request: pb.ResolvePermissionRequest) -> pb.ResolvePermissionResponse:
        """Answer a model's question in the caller's name; return the answer that is valid."""
        ...

    def attach(
        self, requests: AsyncIterator[pb.AttachExecutionRequest]
    ) -> AsyncGenerator[pb.AttachExecutionResponse, None]:
        """Pass on what is typed at a terminal, and yield how much of it has been taken."""
        ...

    def diff(self, request: pb.ReadDiffRequest, compared: CommitRange) -> AsyncGenerator[bytes, None]:
        """Yield a whole diff; `compared` are the commits that the request refers to."""
        ...

    async def snapshot(self, request: pb.GetSnapshotRequest) -> pb.GetSnapshotResponse:
        """Return a snapshot."""
        ...

    async def list_snapshots(self, request: pb.ListSnapshotsRequest) -> pb.ListSnapshotsResponse:
        """List a page of the cell's snapshots; the page token is the cell's own."""
        ...

    async def delete_snapshot(self, request: pb.DeleteSnapshotRequest) -> None:
        """Delete a snapshot; it is a success if the snapshot is already gone."""
        ...

    async def list_workspaces(self, request: pb.ListWorkspacesRequest) -> pb.ListWorkspacesResponse:
        """List a page of the cell's workspaces; the page token is the cell's own."""
        ...

    async def workspace_usage(self, request: pb.ListWorkspaceUsageRequest) -> pb.ListWorkspaceUsageResponse:
        """Return what a page of the cell's workspaces take up; the page token is the cell's own."""
        ...

    async def delete_workspace(self, request: pb.DeleteWorkspaceRequest) -> None:
        """Remove a workspace; it is a success if the workspace is already gone."""
        ...
