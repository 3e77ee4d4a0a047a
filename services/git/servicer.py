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
from services.git.wire import from_proto
from services.git.wire.to_proto import (
    BASE,
    HEAD,
    RESULT,
    SNAPSHOT,
    artifacts_page_to_proto,
    base_to_proto,
    changed_files_page_to_proto,
    clone_to_proto,
    clones_page_to_proto,
    diff_to_proto,
    push_to_proto,
    status_page_to_proto,
    taken_artifacts_to_proto,
    usage_page_to_proto,
)

Context = aio.ServicerContext[Any, Any]


class GitServicer(GitServiceServicer):
    """Serves boatyard.git.v1.GitService."""

    def __init__(self, manager: GitManager, draining: Draining) -> None:
        self._manager = manager
        self._draining = draining

    async def PrepareBase(
        self, request: pb.PrepareBaseRequest, context: Context
    ) -> AsyncGenerator[pb.PrepareBaseResponse, None]:
        source = self._manager.prepare_base(*from_proto.prepare_base(request))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as messages:
            async for message in messages:
                yield base_to_proto(message)

    async def PrepareEmptyBase(
        self, request: pb.PrepareEmptyBaseRequest, context: Context
    ) -> pb.PrepareEmptyBaseResponse:
        base = await self._manager.prepare_empty_base(
            request.repository_id, request.result_commit_id, request.snapshot_id
        )
        return pb.PrepareEmptyBaseResponse(base=BASE.to_proto(base))

    async def CloneRepository(
        self, request: pb.CloneRepositoryRequest, context: Context
    ) -> AsyncGenerator[pb.CloneRepositoryResponse, None]:
        spec = from_proto.clone(request)
        source = with_progress(lambda report: self._manager.clone(spec, report))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as messages:
            async for message in messages:
                yield clone_to_proto(message)

    async def CheckRemote(self, request: pb.CheckRemoteRequest, context: Context) -> pb.CheckRemoteResponse:
        await self._manager.check_remote(from_proto.read_remote(request.remote))
        return pb.CheckRemoteResponse()

    async def ListClones(self, request: pb.ListClonesRequest, context: Context) -> pb.ListClonesResponse:
        page = from_proto.clones(request)
        return clones_page_to_proto(await self._manager.clone_usages(), page)

    async def DeleteClone(self, request: pb.DeleteCloneRequest, context: Context) -> pb.DeleteCloneResponse:
        await self._manager.delete_clone(request.clone_id)
        return pb.DeleteCloneResponse()

    async def CreateBranch(self, request: pb.CreateBranchRequest, context: Context) -> pb.CreateBranchResponse:
        commit_id = await self._manager.create_branch(*from_proto.create_branch(request))
        return pb.CreateBranchResponse(commit_id=commit_id)

    async def GetCurrentBranch(
        self, request: pb.GetCurrentBranchRequest, context: Context
    ) -> pb.GetCurrentBranchResponse:
        return HEAD.to_proto(await self._manager.head(from_proto.tree(request.tree)))

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        tree, page = from_proto.status(request)
        return status_page_to_proto(await self._manager.status(tree), page)

    async def StageAll(self, request: pb.StageAllRequest, context: Context) -> pb.StageAllResponse:
        return pb.StageAllResponse(staged_files=await self._manager.stage_all(*from_proto.stage_all(request)))

    async def Commit(self, request: pb.CommitRequest, context: Context) -> pb.CommitResponse:
        return pb.CommitResponse(commit_id=await self._manager.commit(*from_proto.commit(request)))

    async def TakeResult(self, request: pb.TakeResultRequest, context: Context) -> pb.TakeResultResponse:
        return RESULT.to_proto(await self._manager.take_result(*from_proto.take_result(request)))

    async def SnapshotTree(self, request: pb.SnapshotTreeRequest, context: Context) -> pb.SnapshotTreeResponse:
        snapshot = await self._manager.snapshot_tree(from_proto.snapshot(request))
        return pb.SnapshotTreeResponse(snapshot=SNAPSHOT.to_proto(snapshot))

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:
        snapshot = await self._manager.snapshot(request.snapshot_id)
        return pb.GetSnapshotResponse(snapshot=SNAPSHOT.to_proto(snapshot))

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:
        snapshots, token = await self._manager.snapshot_page(*from_proto.snapshots(request))
        return pb.ListSnapshotsResponse(snapshots=map(SNAPSHOT.to_proto, snapshots), next_page_token=token)

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:
        await self._manager.delete_snapshot(request.snapshot_id)
        return pb.DeleteSnapshotResponse()

    async def TakeArtifacts(self, request: pb.TakeArtifactsRequest, context: Context) -> pb.TakeArtifactsResponse:
        return taken_artifacts_to_proto(await self._manager.take_artifacts(*from_proto.take_artifacts(request)))

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Context) -> pb.ListArtifactsResponse:
        artifacts_id, page = from_proto.artifacts(request)
        return artifacts_page_to_proto(await self._manager.artifacts(artifacts_id), page)

    async def ReadArtifact(
        self, request: pb.ReadArtifactRequest, context: Context
    ) -> AsyncGenerator[pb.ReadArtifactResponse, None]:
        source = self._manager.read_artifact(*from_proto.read_artifact(request))
        pieces = self._draining.stream(source, start=request.offset, position_after=lambda piece: piece[1])
        async with aclosing(pieces) as read:
            async for data, next_offset in read:
                yield pb.ReadArtifactResponse(data=data, next_offset=next_offset)

    async def CheckPush(self, request: pb.CheckPushRequest, context: Context) -> pb.CheckPushResponse:
        await self._manager.check_push(*from_proto.check_push(request))
        return pb.CheckPushResponse()

    async def Push(self, request: pb.PushRequest, context: Context) -> AsyncGenerator[pb.PushResponse, None]:
        push, tree = from_proto.push(request)
        source = with_progress(lambda report: self._manager.push(*push, tree=tree, report=report))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as messages:
            async for message in messages:
                yield push_to_proto(message)

    async def ListRepositoryUsage(
        self, request: pb.ListRepositoryUsageRequest, context: Context
    ) -> pb.ListRepositoryUsageResponse:
        page = from_proto.usage(request)
        return usage_page_to_proto(await self._manager.usage(), page)

    async def GetDiff(self, request: pb.GetDiffRequest, context: Context) -> AsyncGenerator[pb.GetDiffResponse, None]:
        if request.HasField("tree"):
            source = self._manager.tree_diff(from_proto.tree(request.tree), request.max_bytes)
        else:
            source = self._manager.diff(*from_proto.diff(request))
        async with aclosing(self._draining.stream(source, start=0, position_after=lambda _: 0)) as pieces:
            async for piece in pieces:
                for message in diff_to_proto(piece):
                    yield message

    async def ListChangedFiles(
        self, request: pb.ListChangedFilesRequest, context: Context
    ) -> pb.ListChangedFilesResponse:
        repository_id, base, commit, page = from_proto.changed_files(request)
        base_commit_id = await self._manager.diff_base(repository_id, base, commit)
        files = await self._manager.changed_files(repository_id, base_commit_id, commit, request.patterns)
        return changed_files_page_to_proto(files, base_commit_id, page)
