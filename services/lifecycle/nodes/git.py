"""The calls to the git service."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Never

import grpc
from boatyard.git.v1 import git_pb2 as git_pb
from boatyard.git.v1 import git_pb2_grpc as git_rpc

from services.common.errors import Invalid, RemoteFailure, Status
from services.common.rpc.streaming import streaming
from services.lifecycle.model.job_context import Remote
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import Base, Layout, ProtectedChanges, ResultCommit, Snapshot
from services.lifecycle.model.output import ArtifactSummary, DiffSummary, FileChange
from services.lifecycle.model.policy import Policy
from services.lifecycle.nodes import wire
from services.lifecycle.nodes.calls import LONG_SECONDS, JobCalls
from services.sandbox.spec import Tier

_PREPARE_SECONDS = 3600.0  # the first fetch of a huge repository
_MAX_FILES = 1000
_NAMED_FILES = 20
_KEPT_TOLD = 100
_OMITTED_TOLD = 20
_MAX_FILES_BYTES = 256 << 10
_MAX_DIFF_BYTES = 64 << 10
_MAX_ALLOWED = 256


def left_out(spec: JobSpec, by_program: Sequence[str]) -> list[str]:
    """Return the patterns of what no commit of a job's working tree has: the policy's, and the agent's program's."""
    return [*spec.policy.leave_out, *by_program]


def result_request(
    layout: Layout,
    base: Base,
    spec: JobSpec,
    *,
    result_id: str,
    message: str,
    author: str,
    remote: Remote | None,
    leave_out: Sequence[str],
) -> git_pb.TakeResultRequest:
    """Return the request to take a job's working tree as a result, as GitClient.take_result describes it."""
    return git_pb.TakeResultRequest(
        tree=wire.working_tree_to_proto(layout, base, spec.agent.tier),
        repository_id=spec.kept_under,
        result_id=result_id,
        base_commit_id=base.commit_id,
        message=message,
        signature=wire.signature_to_proto(author, spec.create_time),
        remote=None if remote is None else wire.REMOTE.to_proto(remote),
        leave_out=left_out(spec, leave_out),
        git_lfs=spec.policy.git_lfs,
    )


class GitClient:
    """The git service, for one job."""

    def __init__(self, channel: grpc.aio.Channel, calls: JobCalls) -> None:
        self._stub = git_rpc.GitServiceStub(channel)
        self._calls = calls

    async def prepare_base(
        self,
        remote: Remote,
        policy: Policy[Never],
        *,
        revision: bytes = b"",
        result_commit_id: str = "",
        snapshot_id: str = "",
    ) -> Base:
        """Prepare a tree of a revision of the remote (empty: its default branch), of a taken result, or a snapshot."""
        request = git_pb.PrepareBaseRequest(remote=wire.REMOTE.to_proto(remote), git_lfs=policy.git_lfs)
        if snapshot_id:
            request.snapshot_id = snapshot_id
        elif result_commit_id:
            request.result_commit_id = result_commit_id
        elif revision:
            request.revision = wire.text_to_proto("revision", revision)

        async def prepare() -> Base:
            call = self._stub.PrepareBase(request, timeout=_PREPARE_SECONDS, metadata=self._calls.metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    if message.HasField("base"):
                        return wire.BASE.from_proto(message.base)
            raise RemoteFailure(Status.INTERNAL, "INTERNAL", "PrepareBase ended without a base")

        return await self._calls.persist(prepare)

    async def prepare_empty_base(self, kept_under: str, *, result_commit_id: str = "", snapshot_id: str = "") -> Base:
        """Prepare a tree without files for a job without a repository, or of a result or snapshot of such a job."""
        request = git_pb.PrepareEmptyBaseRequest(
            repository_id=kept_under, result_commit_id=result_commit_id, snapshot_id=snapshot_id
        )
        return wire.BASE.from_proto((await self._calls.call(self._stub.PrepareEmptyBase, request, LONG_SECONDS)).base)

    async def create_branch(self, layout: Layout, base: Base, tier: Tier, name: bytes) -> None:
        """Make a branch in a working tree, and switch to it."""
        request = git_pb.CreateBranchRequest(
            tree=wire.working_tree_to_proto(layout, base, tier),
            branch=wire.text_to_proto("branch", name),
            commit_id=base.head_commit_id or base.commit_id,
        )
        await self._calls.call(self._stub.CreateBranch, request, LONG_SECONDS)

    async def take_result(
        self,
        layout: Layout,
        base: Base,
        spec: JobSpec,
        *,
        result_id: str,
        message: str,
        author: str,
        remote: Remote | None = None,
        leave_out: Sequence[str] = (),
    ) -> ResultCommit:
        """Take a working tree as a commit. It is dated by the spec, so that taking it twice gives the same commit.

        `leave_out` are files that are no result, beside those of the policy. With a remote, it may link to what the
        agent pushed to the remotes of submodules.
        """
        request = result_request(
            layout,
            base,
            spec,
            result_id=result_id,
            message=message,
            author=author,
            remote=remote,
            leave_out=leave_out,
        )
        return wire.RESULT.from_proto(await self._calls.call(self._stub.TakeResult, request, LONG_SECONDS))

    async def snapshot(
        self,
        layout: Layout,
        base: Base,
        spec: JobSpec,
        *,
        snapshot_id: str,
        message: str,
        leave_out: Sequence[str] = (),
    ) -> Snapshot:
        """Keep a working tree as a snapshot, as `take_result` would take it.

        An existing snapshot of that id is returned as it is.
        """
        request = git_pb.SnapshotTreeRequest(
            tree=wire.working_tree_to_proto(layout, base, spec.agent.tier),
            repository_id=spec.kept_under,
            snapshot_id=snapshot_id,
            base_commit_id=base.commit_id,
            message=message,
            leave_out=left_out(spec, leave_out),
            git_lfs=spec.policy.git_lfs,
        )
        answer = await self._calls.call(self._stub.SnapshotTree, request, LONG_SECONDS)
        return wire.SNAPSHOT.from_proto(answer.snapshot)

    async def take_artifacts(
        self,
        layout: Layout,
        base: Base | None,
        spec: JobSpec,
        *,
        artifacts_id: str,
        secrets: Mapping[str, str],
        with_submodules: bool = False,
        leave_out: Sequence[str] = (),
    ) -> ArtifactSummary:
        """Keep the files of a working tree that the policy names, without secrets; return the first, and how many.

        With `with_submodules`, what was done in them is kept too, as patches.
        """
        request = git_pb.TakeArtifactsRequest(
            tree=wire.working_tree_to_proto(layout, base, spec.agent.tier),
            artifacts_id=artifacts_id,
            patterns=spec.policy.artifacts,
            redacted=secrets,
        )
        if with_submodules and base is not None:
            request.repository_id, request.base_commit_id = spec.kept_under, base.commit_id
            request.leave_out.extend(left_out(spec, leave_out))
        try:
            taken = await self._calls.call(self._stub.TakeArtifacts, request, LONG_SECONDS)
        except Invalid:  # by a git service that has not been upgraded yet, and keeps what patterns name alone
            if request.patterns:
                raise
            return ArtifactSummary()
        return ArtifactSummary(
            tuple(map(wire.ARTIFACT.from_proto, taken.artifacts[:_KEPT_TOLD])),
            len(taken.artifacts),
            sum(each.size_bytes for each in taken.artifacts),
            tuple(map(wire.OMITTED_ARTIFACT.from_proto, taken.omitted[:_OMITTED_TOLD])),
            taken.total_omitted,
        )

    async def changes(self, repository_id: str, base_commit_id: str, commit_id: str) -> DiffSummary:
        """Return what differs between two commits, cut to what is kept of it."""
        request = git_pb.ListChangedFilesRequest(
            repository_id=repository_id, base_commit_id=base_commit_id, commit_id=commit_id, page_size=_MAX_FILES
        )
        listed = await self._calls.call(self._stub.ListChangedFiles, request, LONG_SECONDS)
        diff_request = git_pb.GetDiffRequest(
            repository_id=repository_id, base_commit_id=base_commit_id, commit_id=commit_id, max_bytes=_MAX_DIFF_BYTES
        )

        async def read() -> tuple[bytes, bool]:
            data, truncated = bytearray(), False
            call = self._stub.GetDiff(diff_request, timeout=LONG_SECONDS, metadata=self._calls.metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    data += message.data
                    truncated = truncated or message.truncated
            return bytes(data), truncated

        diff, truncated = await self._calls.persist(read)
        files = _bounded(map(wire.FILE_CHANGE.from_proto, listed.files))
        return DiffSummary(files, listed.total_files, diff, truncated)

    async def changes_of(
        self, repository_id: str, base_commit_id: str, commit_id: str, patterns: Sequence[str]
    ) -> ProtectedChanges:
        """Return which files differ between two commits of those that patterns name: the first, and how many."""
        request = git_pb.ListChangedFilesRequest(
            repository_id=repository_id,
            base_commit_id=base_commit_id,
            commit_id=commit_id,
            patterns=patterns,
            page_size=_NAMED_FILES,
        )
        listed = await self._calls.call(self._stub.ListChangedFiles, request, LONG_SECONDS)
        changes = map(wire.FILE_CHANGE.from_proto, listed.files)
        paths = (b" -> ".join(filter(None, (each.old_path, each.path))) for each in changes)
        return ProtectedChanges(tuple(paths), listed.total_files)

    async def check_push(self, remote: Remote, commit_id: str, branch: bytes, allowed: Collection[str]) -> None:
        """Find out whether a branch could be pushed to; it may be at an `allowed` commit. `commit_id` is any one."""
        request = git_pb.CheckPushRequest(
            remote=wire.REMOTE.to_proto(remote),
            commit_id=commit_id,
            branch=wire.text_to_proto("branch", branch),
            allowed_commit_ids=sorted(allowed)[:_MAX_ALLOWED],
        )

        async def check() -> None:
            try:
                await self._stub.CheckPush(request, timeout=LONG_SECONDS, metadata=self._calls.metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # by a git service that is not upgraded yet
                    raise

        await self._calls.persist(check)

    async def push(self, remote: Remote, commit_id: str, branch: bytes, expected: str = "") -> None:
        """Push a taken commit to a branch that is at `expected` (empty: not there yet), or at that commit already."""
        request = git_pb.PushRequest(
            remote=wire.REMOTE.to_proto(remote),
            commit_id=commit_id,
            branch=wire.text_to_proto("branch", branch),
            expected_commit_id=expected,
        )

        async def publish() -> None:
            call = self._stub.Push(request, timeout=LONG_SECONDS, metadata=self._calls.metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    if message.HasField("pushed"):
                        return
            raise RemoteFailure(Status.INTERNAL, "INTERNAL", "Push ended without saying what came of it")

        await self._calls.persist(publish)


def _bounded(files: Iterable[FileChange]) -> tuple[FileChange, ...]:
    """Keep the first files whose paths fit into _MAX_FILES_BYTES."""
    kept, size = [], 0
    for file in files:
        size += len(file.path) + len(file.old_path)
        if size > _MAX_FILES_BYTES:
            break
        kept.append(file)
    return tuple(kept)
