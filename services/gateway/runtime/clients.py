"""This cell's node services, asked on a caller's behalf: without any job's fence."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc
from boatyard.execution.v1 import event_pb2, execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming

T = TypeVar("T")

Kinds = Sequence["event_pb2.EventKind.ValueType"]

_LONG_SECONDS: Final = 300.0
_AWAY: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class NodeAway(Exception):
    """A node service cannot be reached now. `cause` is what gRPC says, which the server's layers know how to tell."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Events:
    """Some events of an execution, in order; with `is_last` there are no more, and it has ended."""

    events: tuple[event_pb2.Event, ...]
    is_last: bool
    next_sequence: int | None = None
    """Where to go on after them; None where that has not changed."""


class NodeClients:
    """What the node services have, for callers of the gateway. Refusals are raised as ServiceErrors, or NodeAway."""

    def __init__(self, workspace: grpc.aio.Channel, git: grpc.aio.Channel, execution: grpc.aio.Channel) -> None:
        self._workspace = WorkspaceServiceStub(workspace)
        self._git = GitServiceStub(git)
        self._execution = ExecutionServiceStub(execution)

    async def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: Kinds = ()
    ) -> AsyncGenerator[Events, None]:
        """Yield an execution's events from a sequence on, of some kinds or all; heartbeats (without events) too."""
        request = execution_pb2.WatchEventsRequest(
            execution_id=execution_id, from_sequence=first, follow=follow, kinds=kinds
        )
        with _refusals():
            async with streaming(self._execution.WatchEvents(request)) as messages:
                async for message in messages:
                    following = message.events[-1].sequence + 1 if message.events else None
                    yield Events(tuple(message.events), message.HasField("end"), message.next_sequence or following)

    async def send_message(self, request: pb.SendMessageRequest) -> None:
        """Tell a model something."""
        told = execution_pb2.SendMessageRequest(
            execution_id=request.execution_id, message_id=request.message_id, text=request.text
        )
        await _answer(lambda: self._execution.SendMessage(told))

    async def resolve_permission(
        self, request: pb.ResolvePermissionRequest, decided_by: str
    ) -> event_pb2.PermissionAnswer:
        """Answer what a model asked; return the answer that holds."""
        answer = execution_pb2.ResolvePermissionRequest(
            execution_id=request.execution_id,
            permission_id=request.permission_id,
            allow=request.allow,
            reason=request.reason,
            decided_by=decided_by,
        )
        return (await _answer(lambda: self._execution.ResolvePermission(answer))).answer

    async def attach(
        self, requests: AsyncIterator[execution_pb2.AttachExecutionRequest]
    ) -> AsyncGenerator[execution_pb2.AttachExecutionResponse, None]:
        """Type on a terminal: pass on what is typed, and yield how far it has come."""
        with _refusals():
            async with streaming(self._execution.AttachExecution(requests)) as messages:
                async for message in messages:
                    yield message

    async def diff(self, repository_id: str, base_commit_id: str, commit_id: str) -> AsyncGenerator[bytes, None]:
        """Yield a whole diff."""
        request = git_pb2.GetDiffRequest(
            repository_id=repository_id, base_commit_id=base_commit_id, commit_id=commit_id
        )
        with _refusals():
            async with streaming(self._git.GetDiff(request)) as messages:
                async for message in messages:
                    yield message.data

    async def snapshot(self, snapshot_id: str) -> git_pb2.Snapshot:
        """Return a snapshot."""
        request = git_pb2.GetSnapshotRequest(snapshot_id=snapshot_id)
        return (await _answer(lambda: self._git.GetSnapshot(request))).snapshot

    async def list_snapshots(self, request: pb.ListSnapshotsRequest) -> pb.ListSnapshotsResponse:
        """Pass a list on; pages and filters are the git service's own."""
        asked = git_pb2.ListSnapshotsRequest(
            repository_id=request.repository_id, page_size=request.page_size, page_token=request.page_token
        )
        answer = await _answer(lambda: self._git.ListSnapshots(asked))
        return pb.ListSnapshotsResponse(snapshots=answer.snapshots, next_page_token=answer.next_page_token)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; one that is gone is a success."""
        request = git_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id)
        await _answer(lambda: self._git.DeleteSnapshot(request, timeout=_LONG_SECONDS))

    async def list_workspaces(self, request: pb.ListWorkspacesRequest) -> pb.ListWorkspacesResponse:
        """Pass a list on; pages and filters are the workspace service's own."""
        asked = workspace_pb2.ListWorkspacesRequest(
            states=request.states,
            project_id=request.project_id,
            job_id=request.job_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        answer = await _answer(lambda: self._workspace.ListWorkspaces(asked))
        return pb.ListWorkspacesResponse(workspaces=answer.workspaces, next_page_token=answer.next_page_token)

    async def workspace_usage(self, request: pb.UsageOfWorkspacesRequest) -> pb.UsageOfWorkspacesResponse:
        """Pass on what workspaces take."""
        asked = workspace_pb2.UsageOfWorkspacesRequest(page_size=request.page_size, page_token=request.page_token)
        answer = await _answer(lambda: self._workspace.UsageOfWorkspaces(asked, timeout=_LONG_SECONDS))
        return pb.UsageOfWorkspacesResponse(
            workspaces=answer.workspaces,
            next_page_token=answer.next_page_token,
            total_bytes=answer.total_bytes,
            total_inodes=answer.total_inodes,
            free_bytes=answer.free_bytes,
            driver=answer.driver,
            drivers=answer.drivers,
        )

    async def delete_workspace(self, workspace_id: str) -> None:
        """Remove a workspace; one that is gone is a success."""
        request = workspace_pb2.DeleteWorkspaceRequest(workspace_id=workspace_id)
        await _answer(lambda: self._workspace.DeleteWorkspace(request, timeout=_LONG_SECONDS))


async def _answer(call: Callable[[], Awaitable[T]]) -> T:
    with _refusals():
        return await call()


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() in _AWAY:
            raise NodeAway(error) from error
        raise service_error(error) from error
