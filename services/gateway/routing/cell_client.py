"""Where executions, workspaces and snapshots are: a cell, asked for them in the words of the public API."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import runtime_pb2 as pb

from services.common.errors import Unavailable, peer_unavailable

EventKinds = Sequence["event_pb2.EventKind.ValueType"]


class CellUnreachable(Exception):
    """Whoever has it cannot be reached now. `cause` is what the server's layers know how to tell the caller."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def cell_unavailable(cell_id: str, host: str = "") -> Unavailable:
    """Return the error for callers while the one cell that holds what they ask for does not answer."""
    where = f" on {host}" if host else ""
    message = f"cell {cell_id}{where}, which has what is asked for, does not answer now"
    return peer_unavailable("CELL_UNAVAILABLE", message, {"cell_id": cell_id, "host": host})


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Some events of an execution, in order; with `is_last` there are no more, and it has ended."""

    events: tuple[event_pb2.Event, ...]
    is_last: bool
    next_sequence: int | None = None
    """Where to go on after them; None where that has not changed."""


@dataclass(frozen=True, slots=True)
class CommitRange:
    """Two commits of a repository, whose difference is wanted."""

    repository_id: str
    base_commit_id: str
    commit_id: str


class CellClient(Protocol):
    """A cell. What it refuses is raised as ServiceErrors; that it cannot be reached as CellUnreachable."""

    @property
    def cell_id(self) -> str:
        """Which cell it is."""
        ...

    def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: EventKinds = ()
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield an execution's events from a sequence on, of some kinds or all; heartbeats (without events) too."""
        ...

    async def send_message(self, request: pb.SendMessageRequest) -> None:
        """Tell a model something."""
        ...

    async def resolve_permission(self, request: pb.ResolvePermissionRequest) -> pb.ResolvePermissionResponse:
        """Answer what a model asked, in the caller's name; return the answer that holds."""
        ...

    def attach(
        self, requests: AsyncIterator[pb.AttachExecutionRequest]
    ) -> AsyncGenerator[pb.AttachExecutionResponse, None]:
        """Type on a terminal: pass on what is typed, and yield how far it has come."""
        ...

    def diff(self, request: pb.ReadDiffRequest, compared: CommitRange) -> AsyncGenerator[bytes, None]:
        """Yield a whole diff; `compared` is what the request asks for."""
        ...

    async def snapshot(self, request: pb.GetSnapshotRequest) -> pb.GetSnapshotResponse:
        """Return a snapshot."""
        ...

    async def list_snapshots(self, request: pb.ListSnapshotsRequest) -> pb.ListSnapshotsResponse:
        """List some of its snapshots; the page token is its own."""
        ...

    async def delete_snapshot(self, request: pb.DeleteSnapshotRequest) -> None:
        """Delete a snapshot; one that is gone is a success."""
        ...

    async def list_workspaces(self, request: pb.ListWorkspacesRequest) -> pb.ListWorkspacesResponse:
        """List some of its workspaces; the page token is its own."""
        ...

    async def workspace_usage(self, request: pb.UsageOfWorkspacesRequest) -> pb.UsageOfWorkspacesResponse:
        """Tell what some of its workspaces take; the page token is its own."""
        ...

    async def delete_workspace(self, request: pb.DeleteWorkspaceRequest) -> None:
        """Remove a workspace; one that is gone is a success."""
        ...
