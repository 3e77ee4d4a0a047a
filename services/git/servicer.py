"""The RPCs: from the wire to the manager and back."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from boatyard.git.v1 import git_pb2 as pb
from boatyard.git.v1.git_pb2_grpc import GitServiceServicer
from grpc import aio

from services.common.rpc.draining import Draining
from services.git.manager import GitManager
from services.git.progress import with_progress
from services.git.wire.from_proto import RequestReader
from services.git.wire.to_proto import (
    base_to_proto,
    changed_files_page_to_proto,
    clone_to_proto,
    diff_to_proto,
    head_to_proto,
    push_to_proto,
    result_to_proto,
    snapshot_to_proto,
    status_page_to_proto,
    usage_page_to_proto,
)

Context = aio.ServicerContext[Any, Any]


class GitServicer(GitServiceServicer):
    """Serves boatyard.git.v1.GitService."""

    def __init__(self, manager: GitManager, reader: RequestReader, draining: Draining) -> None:
        self._manager = manager
        self._reader = reader
        self._draining = draining

    async def PrepareBase(
        self, request: pb.PrepareBaseRequest, context: Context
    ) -> AsyncGenerator[pb.PrepareBaseResponse, None]:
        source = self._manager.prepare_base(*self._reader.prepare_base(request))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as messages:
            async for message in messages:
                yield base_to_proto(message)

    async def CloneRepository(
        self, request: pb.CloneRepositoryRequest, context: Context
    ) -> AsyncGenerator[pb.CloneRepositoryResponse, None]:
        spec = self._reader.clone(request)
        source = with_progress(lambda report: self._manager.clone(spec, report))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as messages:
            async for message in messages:
                yield clone_to_proto(message)

    async def CreateBranch(self, request: pb.CreateBranchRequest, context: Context) -> pb.CreateBranchResponse:
        commit_id = await self._manager.create_branch(*self._reader.create_branch(request))
        return pb.CreateBranchResponse(commit_id=commit_id)

    async def GetCurrentBranch(
        self, request: pb.GetCurrentBranchRequest, context: Context
    ) -> pb.GetCurrentBranchResponse:
        head = await self._manager.head(self._reader.tree(request.tree))
        return head_to_proto(head)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        tree, page = self._reader.status(request)
        return status_page_to_proto(await self._manager.status(tree), page)

    async def StageAll(self, request: pb.StageAllRequest, context: Context) -> pb.StageAllResponse:
        return pb.StageAllResponse(staged_files=await self._manager.stage_all(self._reader.tree(request.tree)))

    async def Commit(self, request: pb.CommitRequest, context: Context) -> pb.CommitResponse:
        return pb.CommitResponse(commit_id=await self._manager.commit(*self._reader.commit(request)))

    async def TakeResult(self, request: pb.TakeResultRequest, context: Context) -> pb.TakeResultResponse:
        return result_to_proto(await self._manager.take_result(*self._reader.take_result(request)))

    async def SnapshotTree(self, request: pb.SnapshotTreeRequest, context: Context) -> pb.SnapshotTreeResponse:
        snapshot = await self._manager.snapshot_tree(self._reader.snapshot_tree(request))
        return pb.SnapshotTreeResponse(snapshot=snapshot_to_proto(snapshot))

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:
        snapshot = await self._manager.snapshot(self._reader.snapshot_id(request))
        return pb.GetSnapshotResponse(snapshot=snapshot_to_proto(snapshot))

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:
        snapshots, token = await self._manager.snapshot_page(*self._reader.snapshots(request))
        return pb.ListSnapshotsResponse(snapshots=map(snapshot_to_proto, snapshots), next_page_token=token)

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:
        await self._manager.delete_snapshot(self._reader.snapshot_id(request))
        return pb.DeleteSnapshotResponse()

    async def Push(self, request: pb.PushRequest, context: Context) -> AsyncGenerator[pb.PushResponse, None]:
        push = self._reader.push(request)
        source = with_progress(lambda report: self._manager.push(*push, report))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as messages:
            async for message in messages:
                yield push_to_proto(message)

    async def ListRepositoryUsage(
        self, request: pb.ListRepositoryUsageRequest, context: Context
    ) -> pb.ListRepositoryUsageResponse:
        page = self._reader.usage(request)
        return usage_page_to_proto(await self._manager.usage(), page)

    async def GetDiff(self, request: pb.GetDiffRequest, context: Context) -> AsyncGenerator[pb.GetDiffResponse, None]:
        source = self._manager.diff(*self._reader.diff(request))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as pieces:
            async for piece in pieces:
                for message in diff_to_proto(piece):
                    yield message

    async def ListChangedFiles(
        self, request: pb.ListChangedFilesRequest, context: Context
    ) -> pb.ListChangedFilesResponse:
        repository_id, base, commit, page = self._reader.changed_files(request)
        base_commit_id = await self._manager.diff_base(repository_id, base, commit)
        files = await self._manager.changed_files(repository_id, base_commit_id, commit)
        return changed_files_page_to_proto(files, base_commit_id, page)
