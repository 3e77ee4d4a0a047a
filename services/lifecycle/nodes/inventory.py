"""All executions and workspaces on this machine, of whichever job. Called without a fence, like an operator."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.execution.v1 import execution_pb2_grpc as execution_rpc
from boatyard.workspace.v1 import workspace_pb2 as workspace_pb
from boatyard.workspace.v1 import workspace_pb2_grpc as workspace_rpc

from services.common.errors import FailedPrecondition, NotFound
from services.common.rpc.status import service_error
from services.common.rpc.times import duration_to_proto
from services.lifecycle.nodes.client import Nodes

T = TypeVar("T")

_PAGE = 500
_SHORT_SECONDS = 10.0
_LONG_SECONDS = 590.0


@dataclass(frozen=True, slots=True)
class JobResource:
    """An active execution, or a workspace in use, and the job that it was made for."""

    thing_id: str
    job_id: str


class NodeInventory:
    """The node services as a whole. Raises ServiceError for every refusal, and when a service is away."""

    def __init__(self, nodes: Nodes) -> None:
        self._workspace = workspace_rpc.WorkspaceServiceStub(nodes.workspace)
        self._execution = execution_rpc.ExecutionServiceStub(nodes.execution)

    async def executions(self) -> list[JobResource]:
        """Return the executions of jobs that have not ended."""
        states = execution_pb.NodeExecution
        request = execution_pb.ListExecutionsRequest(
            states=[states.STATE_PENDING, states.STATE_RUNNING], page_size=_PAGE
        )
        resources = [
            JobResource(each.execution_id, each.job_id)
            async for page in self._pages(self._execution.ListExecutions, request)
            for each in page.executions
        ]
        return [each for each in resources if each.job_id]

    async def workspaces(self) -> list[JobResource]:
        """Return the workspaces of jobs that are still worked in."""
        request = workspace_pb.ListWorkspacesRequest(states=[workspace_pb.Workspace.STATE_ACTIVE], page_size=_PAGE)
        resources = [
            JobResource(each.workspace_id, each.labels.job_id)
            async for page in self._pages(self._workspace.ListWorkspaces, request)
            for each in page.workspaces
        ]
        return [each for each in resources if each.job_id]

    async def stop(self, execution_id: str) -> None:
        """Stop an execution. Does nothing when it has ended."""
        request = execution_pb.StopExecutionRequest(execution_id=execution_id)
        with suppress(NotFound):
            try:
                await _answer(self._execution.StopExecution(request, timeout=_SHORT_SECONDS))
            except FailedPrecondition as error:
                if error.reason != "EXECUTION_STATE":
                    raise

    async def close(self, workspace_id: str, keep_seconds: float) -> None:
        """Mark a workspace as failed and keep it for `keep_seconds`; 0 removes it. It may be gone already."""
        if not keep_seconds:
            removed = workspace_pb.DeleteWorkspaceRequest(workspace_id=workspace_id)
            await _answer(self._workspace.DeleteWorkspace(removed, timeout=_LONG_SECONDS))
            return
        failed = workspace_pb.UpdateWorkspaceStateRequest(
            workspace_id=workspace_id,
            state=workspace_pb.Workspace.STATE_ERROR,
            keep_for=duration_to_proto(keep_seconds),
        )
        with suppress(NotFound):
            await _answer(self._workspace.UpdateWorkspaceState(failed, timeout=_SHORT_SECONDS))

    @staticmethod
    async def _pages(method: Callable[..., Awaitable[Any]], request: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - lists
        while True:
            page = await _answer(method(request, timeout=_SHORT_SECONDS))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise service_error(error) from error
