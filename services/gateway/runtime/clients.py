"""This cell's node services, asked on a caller's behalf: without any job's fence."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
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

    @property
    def next_sequence(self) -> int | None:
        """Return what follows; None where there are no events."""
        return self.events[-1].sequence + 1 if self.events else None


class NodeClients:
    """What the node services have, for callers of the gateway. Refusals are raised as ServiceErrors, or NodeAway."""

    def __init__(self, workspace: grpc.aio.Channel, git: grpc.aio.Channel, execution: grpc.aio.Channel) -> None:
        self._workspace = WorkspaceServiceStub(workspace)
        self._git = GitServiceStub(git)
        self._execution = ExecutionServiceStub(execution)

    async def events(self, execution_id: str, first: int, *, follow: bool) -> AsyncGenerator[Events, None]:
        """Yield an execution's events from a sequence on, heartbeats (without events) among them."""
        request = execution_pb2.WatchEventsRequest(execution_id=execution_id, from_sequence=first, follow=follow)
        with _refusals():
            async with streaming(self._execution.WatchEvents(request)) as messages:
                async for message in messages:
                    yield Events(tuple(message.events), message.HasField("end"))

    async def diff(self, repository_id: str, base_commit_id: str, commit_id: str) -> AsyncGenerator[bytes, None]:
        """Yield a whole diff."""
        request = git_pb2.GetDiffRequest(
            repository_id=repository_id, base_commit_id=base_commit_id, commit_id=commit_id
        )
        with _refusals():
            async with streaming(self._git.GetDiff(request)) as messages:
                async for message in messages:
                    yield message.data

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
