"""This cell's node services, called on behalf of a caller, without the fence of a job."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import grpc
from boatyard.execution.v1 import execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from services.common.errors import FailedPrecondition, NotFound
from services.common.logs import current_caller
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.gateway.routing.cell_client import CellUnreachable, CommitRange, EventBatch, EventKinds

T = TypeVar("T")

LONG_SECONDS: Final = 300.0
"""How long it may take to remove a large tree, or to measure all of them."""
_UNREACHABLE: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class LocalCellClient:
    """Implements CellClient for this cell."""

    def __init__(
        self, cell_id: str, workspace: grpc.aio.Channel, git: grpc.aio.Channel, execution: grpc.aio.Channel
    ) -> None:
        self._cell_id = cell_id
        self._workspace = WorkspaceServiceStub(workspace)
        self._git = GitServiceStub(git)
        self._execution = ExecutionServiceStub(execution)

    @property
    def cell_id(self) -> str:
        return self._cell_id

    async def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: EventKinds = ()
    ) -> AsyncGenerator[EventBatch, None]:
        request = execution_pb2.WatchEventsRequest(
            execution_id=execution_id, from_sequence=first, follow=follow, kinds=kinds
        )
        with _translated_errors():
            async with streaming(self._execution.WatchEvents(request)) as messages:
                async for message in messages:
                    following = message.events[-1].sequence + 1 if message.events else None
                    yield EventBatch(tuple(message.events), message.HasField("end"), message.next_sequence or following)

    async def send_message(self, request: pb.SendMessageRequest) -> None:
        forwarded = execution_pb2.SendMessageRequest(
            execution_id=request.execution_id, message_id=request.message_id, text=request.text
        )
        await _answer(lambda: self._execution.SendMessage(forwarded))

    async def resolve_permission(self, request: pb.ResolvePermissionRequest) -> pb.ResolvePermissionResponse:
        answer = execution_pb2.ResolvePermissionRequest(
            execution_id=request.execution_id,
            permission_id=request.permission_id,
            allow=request.allow,
            reason=request.reason,
            decided_by=current_caller(),
        )
        resolved = await _answer(lambda: self._execution.ResolvePermission(answer))
        return pb.ResolvePermissionResponse(answer=resolved.answer)

    async def attach(
        self, requests: AsyncIterator[pb.AttachExecutionRequest]
    ) -> AsyncGenerator[pb.AttachExecutionResponse, None]:
        typed = (_attach_request_to_proto(request) async for request in requests)
        with _translated_errors():
            async with streaming(self._execution.AttachExecution(typed)) as messages:
                async for message in messages:
                    yield pb.AttachExecutionResponse(taken_bytes=message.taken_bytes, ended=message.HasField("end"))

    async def diff(self, request: pb.ReadDiffRequest, compared: CommitRange) -> AsyncGenerator[bytes, None]:
        forwarded = git_pb2.GetDiffRequest(
            repository_id=compared.repository_id,
            base_commit_id=compared.base_commit_id,
            commit_id=compared.commit_id,
        )
        try:
            with _translated_errors():
                async with streaming(self._git.GetDiff(forwarded)) as messages:
                    async for message in messages:
                        yield message.data
        except NotFound as error:
            if not request.execution_id:
                raise
            raise _result_expired(request.execution_id, compared.commit_id) from error

    async def snapshot(self, request: pb.GetSnapshotRequest) -> pb.GetSnapshotResponse:
        forwarded = git_pb2.GetSnapshotRequest(snapshot_id=request.snapshot_id)
        return pb.GetSnapshotResponse(snapshot=(await _answer(lambda: self._git.GetSnapshot(forwarded))).snapshot)

    async def list_snapshots(self, request: pb.ListSnapshotsRequest) -> pb.ListSnapshotsResponse:
        forwarded = git_pb2.ListSnapshotsRequest(
            repository_id=request.repository_id, page_size=request.page_size, page_token=request.page_token
        )
        answer = await _answer(lambda: self._git.ListSnapshots(forwarded))
        return pb.ListSnapshotsResponse(snapshots=answer.snapshots, next_page_token=answer.next_page_token)

    async def delete_snapshot(self, request: pb.DeleteSnapshotRequest) -> None:
        forwarded = git_pb2.DeleteSnapshotRequest(snapshot_id=request.snapshot_id)
        await _answer(lambda: self._git.DeleteSnapshot(forwarded, timeout=LONG_SECONDS))

    async def list_workspaces(self, request: pb.ListWorkspacesRequest) -> pb.ListWorkspacesResponse:
        forwarded = workspace_pb2.ListWorkspacesRequest(
            states=request.states,
            project_id=request.project_id,
            job_id=request.job_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        answer = await _answer(lambda: self._workspace.ListWorkspaces(forwarded))
        return pb.ListWorkspacesResponse(workspaces=answer.workspaces, next_page_token=answer.next_page_token)

    async def workspace_usage(self, request: pb.ListWorkspaceUsageRequest) -> pb.ListWorkspaceUsageResponse:
        forwarded = workspace_pb2.ListWorkspaceUsageRequest(page_size=request.page_size, page_token=request.page_token)
        answer = await _answer(lambda: self._workspace.ListWorkspaceUsage(forwarded, timeout=LONG_SECONDS))
        usage = pb.CellUsage(
            cell_id=self._cell_id,
            workspaces=answer.workspaces,
            total_bytes=answer.total_bytes,
            total_inodes=answer.total_inodes,
            free_bytes=answer.free_bytes,
            driver=answer.driver,
            drivers=answer.drivers,
        )
        return pb.ListWorkspaceUsageResponse(cells=[usage], next_page_token=answer.next_page_token)

    async def delete_workspace(self, request: pb.DeleteWorkspaceRequest) -> None:
        forwarded = workspace_pb2.DeleteWorkspaceRequest(workspace_id=request.workspace_id)
        await _answer(lambda: self._workspace.DeleteWorkspace(forwarded, timeout=LONG_SECONDS))


async def _answer(call: Callable[[], Awaitable[T]]) -> T:
    with _translated_errors():
        return await call()


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() in _UNREACHABLE:
            raise CellUnreachable(error) from error
        raise service_error(error) from error


def _attach_request_to_proto(request: pb.AttachExecutionRequest) -> execution_pb2.AttachExecutionRequest:
    """Convert a message from a terminal; the execution service reports what is wrong with it."""
    match request.WhichOneof("kind"):
        case "input":
            return execution_pb2.AttachExecutionRequest(input=request.input)
        case "size":
            return execution_pb2.AttachExecutionRequest(size=request.size)
        case _:
            return execution_pb2.AttachExecutionRequest(execution_id=request.execution_id)


def _result_expired(execution_id: str, commit_id: str) -> FailedPrecondition:
    """Return the error that says that a result is gone from its cell, and what remains of it."""
    return FailedPrecondition(
        "RESULT_EXPIRED",
        f"the result of execution {execution_id!r} is not kept any more (BOATYARD_GIT_RESULT_KEEP_HOURS): what was"
        " stored of its diff is in the execution's output, and what was pushed is where it was pushed to",
        execution_id,
        metadata={"commit_id": commit_id},
    )
