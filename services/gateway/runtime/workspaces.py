"""Workspaces and diffs, asked of this cell's node services on a caller's behalf, without any job's fence."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

import grpc
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from services.common.errors import FailedPrecondition, Status
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.gateway.jobs.model import ExecutionView
from services.gateway.jobs.store import JobStore

T = TypeVar("T")

_LONG_SECONDS: Final = 300.0


class NodeViews:
    """What the node services have, for callers of the gateway."""

    def __init__(self, store: JobStore, workspace: grpc.aio.Channel, git: grpc.aio.Channel) -> None:
        self._store = store
        self._workspace = WorkspaceServiceStub(workspace)
        self._git = GitServiceStub(git)

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
        """Remove a workspace. Raises FailedPrecondition (WORKSPACE_IN_USE) while a live job works in it."""
        job_id = await self._store.user_of(workspace_id)
        if job_id is not None:
            raise FailedPrecondition(
                "WORKSPACE_IN_USE",
                f"job {job_id} works in workspace {workspace_id!r}: wait for its end, or cancel it",
                workspace_id,
                metadata={"job_id": job_id},
            )
        request = workspace_pb2.DeleteWorkspaceRequest(workspace_id=workspace_id)
        await _answer(lambda: self._workspace.DeleteWorkspace(request, timeout=_LONG_SECONDS))

    async def diff(self, view: ExecutionView) -> AsyncGenerator[bytes, None]:
        """Yield the whole diff of an execution's result. Raises FailedPrecondition (NO_RESULT)."""
        output = view.output
        if not output.commit_id:
            raise FailedPrecondition(
                "NO_RESULT", f"execution {view.execution_id!r} has no result, or not yet", view.execution_id
            )
        if output.commit_id == output.base_commit_id:
            return
        request = git_pb2.GetDiffRequest(
            repository_id=view.repository_id, base_commit_id=output.base_commit_id, commit_id=output.commit_id
        )
        try:
            async with streaming(self._git.GetDiff(request)) as messages:
                async for message in messages:
                    yield message.data
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error


async def _answer(call: Callable[[], Awaitable[T]]) -> T:
    try:
        return await call()
    except grpc.aio.AioRpcError as error:
        raise _told(error) from error


def _told(error: grpc.aio.AioRpcError) -> Exception:
    """Pass a refusal on as it is; that a node is away is told by the shared code that sees the raw error."""
    told = service_error(error)
    return error if told.status is Status.UNAVAILABLE else told
