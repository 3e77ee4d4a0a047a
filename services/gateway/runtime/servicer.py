"""The RPCs of AgentRuntimeService: from the wire to the domain and back."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from boatyard.execution.v1 import execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.gateway.v1.runtime_pb2_grpc import AgentRuntimeServiceServicer
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub
from grpc import aio

from services.common.errors import NotFound
from services.common.logs import current_caller
from services.common.rpc.draining import Draining
from services.common.rpc.streaming import conversing, streaming
from services.gateway import scope
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.store import JobStore, execution_key
from services.gateway.jobs.submission_wire import branch_from_proto
from services.gateway.jobs.wire import job_to_proto
from services.gateway.routing.peers import LONGEST_SECONDS
from services.gateway.runtime import wire
from services.gateway.runtime.relay import Relay
from services.gateway.runtime.wire import answer_of, node_refusals
from services.gateway.runtime.workspace_git import WorkspaceGit
from services.gateway.wire.lists import fitted
from services.gateway.wire.requests import idempotency_key
from services.lifecycle.model.ids import execution_of_snapshot
from services.lifecycle.model.job_spec import kept_under
from services.lifecycle.nodes import Nodes
from services.lifecycle.secrets import job_redactor
from services.redaction.strand import Flow

Context = aio.ServicerContext[Any, Any]


class RuntimeServicer(AgentRuntimeServiceServicer):
    """Serves boatyard.gateway.v1.AgentRuntimeService, as far as it is about this cell; see `routing` for the others."""

    def __init__(
        self,
        admission: Admission,
        store: JobStore,
        relay: Relay,
        nodes: Nodes,
        *,
        cell_id: str,
        draining: Draining,
        workspace_git: WorkspaceGit,
    ) -> None:
        self._admission = admission
        self._store = store
        self._relay = relay
        self._cell_id = cell_id
        self._draining = draining
        self._workspace_git = workspace_git
        self._workspace = WorkspaceServiceStub(nodes.workspace)
        self._git = GitServiceStub(nodes.git)
        self._execution = ExecutionServiceStub(nodes.execution)

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        view = await self._admission.admit(wire.submission_from_proto(request), idempotency_key(request))
        return pb.ExecuteResponse(execution_id=view.executions[0].execution_id, job_id=view.spec.job_id)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        view = await self._store.execution(request.execution_id)
        return pb.GetExecutionResponse(execution=wire.execution_to_proto(view))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        filters, page = wire.list_executions_from_proto(request)
        views = await self._store.executions(filters, page)
        executions, token = fitted(views, page, wire.execution_to_proto, execution_key)
        total = None if request.page_token else await self._store.number_of_executions(filters)
        return pb.ListExecutionsResponse(executions=executions, next_page_token=token, total_size=total)

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.CancelExecutionResponse:
        view = await self._store.cancel_execution(request.execution_id)
        return pb.CancelExecutionResponse(execution=wire.execution_to_proto(view))

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        first = max(1, request.from_sequence)
        updates = self._relay.updates(request.execution_id, first, follow=request.follow, kinds=request.kinds)
        async for update in self._draining.stream(updates, start=first, position_after=lambda one: one.next_sequence):
            yield wire.update_to_proto(update)

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        await self._check_begun(request.execution_id)
        await self._store.record_steering(request.execution_id)
        await answer_of(self._execution.SendMessage(wire.same_fields(request, execution_pb2.SendMessageRequest)))
        return pb.SendMessageResponse()

    async def ResolvePermission(
        self, request: pb.ResolvePermissionRequest, context: Context
    ) -> pb.ResolvePermissionResponse:
        await self._check_begun(request.execution_id)
        asked = wire.same_fields(request, execution_pb2.ResolvePermissionRequest, decided_by=current_caller())
        return wire.same_fields(await answer_of(self._execution.ResolvePermission(asked)), pb.ResolvePermissionResponse)

    async def AttachExecution(
        self, request_iterator: AsyncIterator[pb.AttachExecutionRequest], context: Context
    ) -> AsyncIterator[pb.AttachExecutionResponse]:
        first = await anext(aiter(request_iterator), None)
        await self._check_begun(wire.attached_execution_from_proto(first))

        async def typed() -> AsyncIterator[execution_pb2.AttachExecutionRequest]:
            assert first is not None  # noqa: S101 - its absence was refused above
            yield wire.same_fields(first, execution_pb2.AttachExecutionRequest)
            types = False
            async for request in request_iterator:
                if request.HasField("input") and not types:
                    await self._store.record_steering(first.execution_id)
                    types = True
                yield wire.same_fields(request, execution_pb2.AttachExecutionRequest)

        async def progress() -> AsyncGenerator[pb.AttachExecutionResponse, None]:
            with node_refusals():
                async with conversing(self._execution.AttachExecution(), typed()) as messages:
                    async for message in messages:
                        yield pb.AttachExecutionResponse(taken_bytes=message.taken_bytes, ended=message.HasField("end"))

        async for message in self._draining.stream(progress(), start=0, position_after=lambda one: one.taken_bytes):
            yield message

    async def ReadDiff(self, request: pb.ReadDiffRequest, context: Context) -> AsyncIterator[pb.ReadDiffResponse]:
        compared = await self._compared(request)
        if compared.base_commit_id == compared.commit_id:
            return
        made_by = request.execution_id or execution_of_snapshot(request.snapshot_id)
        clean = Flow(job_redactor(await self._store.secrets_of(made_by)))
        try:
            with node_refusals():
                async with streaming(self._git.GetDiff(compared)) as messages:
                    async for message in messages:
                        if data := clean.take(message.data):
                            yield pb.ReadDiffResponse(data=data)
            if data := clean.take(b"", last=True):
                yield pb.ReadDiffResponse(data=data)
        except NotFound as error:
            if request.snapshot_id:
                raise
            raise wire.result_expired(request.execution_id, compared.commit_id) from error

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Context) -> pb.ListArtifactsResponse:
        view = await self._store.execution(request.execution_id)
        asked = wire.artifacts_request(request, git_pb2.ListArtifactsRequest)
        answer = await answer_of(self._git.ListArtifacts(asked))
        if not answer.artifacts and not request.page_token:
            wire.check_no_artifacts(view)
        return wire.same_fields(answer, pb.ListArtifactsResponse)

    async def ReadArtifact(
        self, request: pb.ReadArtifactRequest, context: Context
    ) -> AsyncIterator[pb.ReadArtifactResponse]:
        view = await self._store.execution(request.execution_id)
        asked = wire.artifacts_request(request, git_pb2.ReadArtifactRequest)
        try:
            with node_refusals():
                async with streaming(self._git.ReadArtifact(asked)) as messages:
                    async for message in messages:
                        yield wire.same_fields(message, pb.ReadArtifactResponse)
        except NotFound:
            listed = await answer_of(
                self._git.ListArtifacts(git_pb2.ListArtifactsRequest(artifacts_id=view.execution_id))
            )
            if not listed.artifacts:
                wire.check_no_artifacts(view)
            raise

    async def ReadRecording(
        self, request: pb.ReadRecordingRequest, context: Context
    ) -> AsyncIterator[pb.ReadRecordingResponse]:
        view = await self._store.execution(request.execution_id)
        asked = wire.same_fields(request, execution_pb2.ReadRecordingRequest)
        try:
            with node_refusals():
                async with streaming(self._execution.ReadRecording(asked)) as messages:
                    async for message in messages:
                        yield wire.same_fields(message, pb.ReadRecordingResponse)
        except NotFound as error:
            if error.resource_type == "recording":
                raise
            raise NotFound("recording", view.execution_id, because="the execution has not begun") from error

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Context) -> pb.GetWorkspaceResponse:
        return pb.GetWorkspaceResponse(workspace=await self._workspace_of(request.workspace_id), cell_id=self._cell_id)

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: Context) -> pb.ListWorkspacesResponse:
        asked = wire.same_fields(wire.limited_to_visible(request), workspace_pb2.ListWorkspacesRequest)
        answer = await answer_of(self._workspace.ListWorkspaces(asked))
        cell_ids = {workspace.workspace_id: self._cell_id for workspace in answer.workspaces}
        return wire.same_fields(answer, pb.ListWorkspacesResponse, cell_ids=cell_ids)

    async def ListWorkspaceUsage(
        self, request: pb.ListWorkspaceUsageRequest, context: Context
    ) -> pb.ListWorkspaceUsageResponse:
        scope.check_all()
        asked = wire.same_fields(request, workspace_pb2.ListWorkspaceUsageRequest)
        return wire.usage_to_proto(
            self._cell_id, await answer_of(self._workspace.ListWorkspaceUsage(asked, timeout=LONGEST_SECONDS))
        )

    async def DeleteWorkspace(self, request: pb.DeleteWorkspaceRequest, context: Context) -> pb.DeleteWorkspaceResponse:
        await self._store.check_unused(request.workspace_id)
        if await self._store.cell_of_workspace(request.workspace_id) is None:  # a job's may be gone already
            await self._workspace_of(request.workspace_id)
        asked = wire.same_fields(request, workspace_pb2.DeleteWorkspaceRequest)
        await answer_of(self._workspace.DeleteWorkspace(asked, timeout=LONGEST_SECONDS))
        return pb.DeleteWorkspaceResponse()

    async def SweepWorkspaces(self, request: pb.SweepWorkspacesRequest, context: Context) -> pb.SweepWorkspacesResponse:
        asked = wire.same_fields(wire.limited_to_visible(request), workspace_pb2.SweepWorkspacesRequest)
        answer = await answer_of(self._workspace.SweepWorkspaces(asked, timeout=LONGEST_SECONDS))
        return wire.same_fields(answer, pb.SweepWorkspacesResponse)

    async def GetWorkspaceStatus(
        self, request: pb.GetWorkspaceStatusRequest, context: Context
    ) -> pb.GetWorkspaceStatusResponse:
        return await self._workspace_git.status(request)

    async def ReadWorkspaceDiff(
        self, request: pb.ReadWorkspaceDiffRequest, context: Context
    ) -> AsyncIterator[pb.ReadWorkspaceDiffResponse]:
        async with aclosing(self._workspace_git.diff(request.workspace_id)) as pieces:
            async for data in pieces:
                yield pb.ReadWorkspaceDiffResponse(data=data)

    async def BranchWorkspace(self, request: pb.BranchWorkspaceRequest, context: Context) -> pb.BranchWorkspaceResponse:
        return pb.BranchWorkspaceResponse(commit_id=await self._workspace_git.create_branch(request))

    async def CommitWorkspace(self, request: pb.CommitWorkspaceRequest, context: Context) -> pb.CommitWorkspaceResponse:
        commit_id = await self._workspace_git.commit(request.workspace_id, request.message)
        return pb.CommitWorkspaceResponse(commit_id=commit_id)

    async def PushWorkspace(self, request: pb.PushWorkspaceRequest, context: Context) -> pb.PushWorkspaceResponse:
        branch, key = branch_from_proto(request.branch), idempotency_key(request)
        view = await self._workspace_git.push(request.workspace_id, branch, key)
        return pb.PushWorkspaceResponse(job=job_to_proto(view))

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:
        answer = await answer_of(self._git.ListSnapshots(wire.same_fields(request, git_pb2.ListSnapshotsRequest)))
        cell_ids = {snapshot.snapshot_id: self._cell_id for snapshot in answer.snapshots}
        wire.leave_caveats_out(answer.snapshots)
        return wire.same_fields(answer, pb.ListSnapshotsResponse, cell_ids=cell_ids)

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:
        return pb.GetSnapshotResponse(snapshot=await self._snapshot(request.snapshot_id))

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:
        asked = git_pb2.DeleteSnapshotRequest(snapshot_id=request.snapshot_id)
        await answer_of(self._git.DeleteSnapshot(asked, timeout=LONGEST_SECONDS))
        return pb.DeleteSnapshotResponse()

    async def _workspace_of(self, workspace_id: str) -> workspace_pb2.Workspace:
        asked = workspace_pb2.GetWorkspaceRequest(workspace_id=workspace_id)
        return (await answer_of(self._workspace.GetWorkspace(asked))).workspace

    async def _check_begun(self, execution_id: str) -> None:
        """Raise NotFound, or FailedPrecondition (EXECUTION_STATE) for an execution that has not begun."""
        wire.check_begun(await self._store.execution(execution_id))

    async def _snapshot(self, snapshot_id: str) -> git_pb2.Snapshot:
        asked = git_pb2.GetSnapshotRequest(snapshot_id=snapshot_id)
        snapshot = (await answer_of(self._git.GetSnapshot(asked))).snapshot
        wire.leave_caveats_out([snapshot])
        return snapshot

    async def _compared(self, request: pb.ReadDiffRequest) -> git_pb2.GetDiffRequest:
        """Return the request for a diff, with the commits that it compares."""
        if request.snapshot_id:
            snapshot = await self._snapshot(request.snapshot_id)
            repository_id, commits = snapshot.repository_id, (snapshot.base_commit_id, snapshot.commit_id)
        else:
            view = await self._store.execution(request.execution_id)
            repository_id, commits = kept_under(view.repository_id, view.project_id), wire.result_commits(view)
        return git_pb2.GetDiffRequest(repository_id=repository_id, base_commit_id=commits[0], commit_id=commits[1])
