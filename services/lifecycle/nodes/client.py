"""The calls to the node services, a method for each."""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.execution.v1 import execution_pb2_grpc as execution_rpc
from boatyard.git.v1 import git_pb2 as git_pb
from boatyard.git.v1 import git_pb2_grpc as git_rpc
from boatyard.workspace.v1 import workspace_pb2 as workspace_pb
from boatyard.workspace.v1 import workspace_pb2_grpc as workspace_rpc
from google.protobuf.duration_pb2 import Duration

from services.common.errors import AlreadyExists, FailedPrecondition, Invalid, NotFound, RemoteFailure, Status
from services.common.fence import Fence
from services.common.rpc.channel import fence_metadata
from services.common.rpc.streaming import streaming
from services.common.rpc.times import duration_to_proto
from services.common.text import without_cut_character
from services.lifecycle.model.job_context import Remote
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import Base, Launch, Layout, ProtectedChanges, ResultCommit, Run, Snapshot
from services.lifecycle.model.output import ArtifactSummary, DiffSummary, FileChange
from services.lifecycle.model.states import ExecutionState
from services.lifecycle.nodes import wire
from services.lifecycle.nodes.retries import Pause, RetryLimits, call_with_retries
from services.sandbox.spec import Tier

T = TypeVar("T")

_SHORT_SECONDS = 10.0
_LONG_SECONDS = 590.0  # copies, takes and pushes: just below what a server allows
_PREPARE_SECONDS = 3600.0  # the first fetch of a huge repository
_WAIT_SECONDS = 30.0
_MAX_FILES = 1000
_NAMED_FILES = 20
_KEPT_TOLD = 100
_OMITTED_TOLD = 20
_MAX_FILES_BYTES = 256 << 10
_MAX_DIFF_BYTES = 64 << 10
_TAIL_EVENTS = 256
_MAX_ALLOWED = 256


@dataclass(frozen=True, slots=True)
class Nodes:
    """Channels to the cell's node services."""

    workspace: grpc.aio.Channel
    git: grpc.aio.Channel
    execution: grpc.aio.Channel
    retry_limits: RetryLimits = field(default_factory=RetryLimits)

    def for_job(self, fence: Fence, pause: Pause, check: Callable[[], None] = lambda: None) -> "JobNodes":
        """Return a client that sends `fence`, waits between tries with `pause`, and calls `check` before each try.

        Both may raise, so that a process that was frozen past the end of its lease does not simply continue.
        """
        return JobNodes(self, fence, pause, check)


class JobNodes:
    """The node services, for one job. Refusals are raised as ServiceError, and NodeLost after the RetryLimits."""

    def __init__(self, nodes: Nodes, fence: Fence, pause: Pause, check: Callable[[], None]) -> None:
        self._workspace = workspace_rpc.WorkspaceServiceStub(nodes.workspace)
        self._git = git_rpc.GitServiceStub(nodes.git)
        self._execution = execution_rpc.ExecutionServiceStub(nodes.execution)
        self._metadata = fence_metadata(fence)
        self._job_id = fence.job_id
        self._retry_limits = nodes.retry_limits
        self._pause = pause
        self._check = check

    # Workspaces.

    async def create_workspace(
        self,
        workspace_id: str,
        base: Base | None,
        spec: JobSpec,
        files: Mapping[str, bytes] | None = None,
        *,
        is_empty: bool = False,
    ) -> Layout:
        """Make a workspace from a base, or an empty one, and write `files` (contents by path) into it.

        With `is_empty` the base is only kept from being removed: the workspace has nothing of it, no `.git` either.
        """
        given = (files or {}).items()
        request = workspace_pb.CreateWorkspaceRequest(
            workspace_id=workspace_id,
            base_layers=() if base is None or is_empty else wire.texts_to_proto("base_layers", base.layers),
            pins_path="" if base is None else wire.text_to_proto("pins_path", base.pins_path),
            labels=wire.workspace_labels_to_proto(spec),
            visibility=wire.visibility_to_proto(spec.agent.tier),
            files=[workspace_pb.File(path=path, content=content) for path, content in given],
        )
        answer = await self._call(self._workspace.CreateWorkspace, request, _LONG_SECONDS)
        return wire.layout_from_proto(answer.workspace.layout)

    async def close_workspace(self, workspace_id: str, *, failed: bool, keep_seconds: float) -> None:
        """Record that the work in a workspace has ended, how, and how long to keep it; it may be gone already."""
        states = workspace_pb.Workspace
        state = states.STATE_ERROR if failed else states.STATE_COMPLETED
        request = workspace_pb.UpdateWorkspaceStateRequest(
            workspace_id=workspace_id, state=state, keep_for=duration_to_proto(keep_seconds)
        )
        with suppress(NotFound):
            await self._call(self._workspace.UpdateWorkspaceState, request)

    async def delete_workspace(self, workspace_id: str) -> None:
        """Remove a workspace; one that is gone is a success."""
        request = workspace_pb.DeleteWorkspaceRequest(workspace_id=workspace_id)
        await self._call(self._workspace.DeleteWorkspace, request, _LONG_SECONDS)

    # Git.

    async def prepare_base(
        self, remote: Remote, *, revision: bytes = b"", result_commit_id: str = "", snapshot_id: str = ""
    ) -> Base:
        """Prepare a tree of a revision of the remote (empty: its default branch), of a taken result, or a snapshot."""
        request = git_pb.PrepareBaseRequest(remote=wire.REMOTE.to_proto(remote))
        if snapshot_id:
            request.snapshot_id = snapshot_id
        elif result_commit_id:
            request.result_commit_id = result_commit_id
        elif revision:
            request.revision = wire.text_to_proto("revision", revision)

        async def prepare() -> Base:
            call = self._git.PrepareBase(request, timeout=_PREPARE_SECONDS, metadata=self._metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    if message.HasField("base"):
                        return wire.BASE.from_proto(message.base)
            raise RemoteFailure(Status.INTERNAL, "INTERNAL", "PrepareBase ended without a base")

        return await self._persist(prepare)

    async def prepare_empty_base(self, kept_under: str, *, result_commit_id: str = "", snapshot_id: str = "") -> Base:
        """Prepare a tree without files for a job without a repository, or of a result or snapshot of such a job."""
        request = git_pb.PrepareEmptyBaseRequest(
            repository_id=kept_under, result_commit_id=result_commit_id, snapshot_id=snapshot_id
        )
        return wire.BASE.from_proto((await self._call(self._git.PrepareEmptyBase, request, _LONG_SECONDS)).base)

    async def create_branch(self, layout: Layout, base: Base, tier: Tier, name: bytes) -> None:
        """Make a branch in a working tree, and switch to it."""
        request = git_pb.CreateBranchRequest(
            tree=wire.working_tree_to_proto(layout, base, tier),
            branch=wire.text_to_proto("branch", name),
            commit_id=base.head_commit_id or base.commit_id,
        )
        await self._call(self._git.CreateBranch, request, _LONG_SECONDS)

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
    ) -> ResultCommit:
        """Take a working tree as a commit. It is dated by the spec, so that taking it twice gives the same commit.

        With a remote, it may link to what the agent pushed to the remotes of submodules.
        """
        request = git_pb.TakeResultRequest(
            tree=wire.working_tree_to_proto(layout, base, spec.agent.tier),
            repository_id=spec.kept_under,
            result_id=result_id,
            base_commit_id=base.commit_id,
            message=message,
            signature=wire.signature_to_proto(author, spec.create_time),
            remote=None if remote is None else wire.REMOTE.to_proto(remote),
            leave_out=spec.policy.leave_out,
        )
        return wire.RESULT.from_proto(await self._keep(self._git.TakeResult, request))

    async def snapshot(self, layout: Layout, base: Base, spec: JobSpec, *, snapshot_id: str, message: str) -> Snapshot:
        """Keep a working tree as a snapshot; an existing snapshot of that id is returned as it is."""
        request = git_pb.SnapshotTreeRequest(
            tree=wire.working_tree_to_proto(layout, base, spec.agent.tier),
            repository_id=spec.kept_under,
            snapshot_id=snapshot_id,
            base_commit_id=base.commit_id,
            message=message,
            leave_out=spec.policy.leave_out,
        )
        answer = await self._keep(self._git.SnapshotTree, request)
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
        try:
            taken = await self._keep(self._git.TakeArtifacts, request)
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
        listed = await self._call(self._git.ListChangedFiles, request, _LONG_SECONDS)
        diff_request = git_pb.GetDiffRequest(
            repository_id=repository_id, base_commit_id=base_commit_id, commit_id=commit_id, max_bytes=_MAX_DIFF_BYTES
        )

        async def read() -> tuple[bytes, bool]:
            data, truncated = bytearray(), False
            call = self._git.GetDiff(diff_request, timeout=_LONG_SECONDS, metadata=self._metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    data += message.data
                    truncated = truncated or message.truncated
            return bytes(data), truncated

        diff, truncated = await self._persist(read)
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
        listed = await self._call(self._git.ListChangedFiles, request, _LONG_SECONDS)
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
                await self._git.CheckPush(request, timeout=_LONG_SECONDS, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # by a git service that is not upgraded yet
                    raise

        await self._persist(check)

    async def push(self, remote: Remote, commit_id: str, branch: bytes, expected: str = "") -> None:
        """Push a taken commit to a branch that is at `expected` (empty: not there yet), or at that commit already."""
        request = git_pb.PushRequest(
            remote=wire.REMOTE.to_proto(remote),
            commit_id=commit_id,
            branch=wire.text_to_proto("branch", branch),
            expected_commit_id=expected,
        )

        async def publish() -> None:
            call = self._git.Push(request, timeout=_LONG_SECONDS, metadata=self._metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    if message.HasField("pushed"):
                        return
            raise RemoteFailure(Status.INTERNAL, "INTERNAL", "Push ended without saying what came of it")

        await self._persist(publish)

    # Executions.

    async def start(self, execution_id: str, launch: Launch) -> Run:
        """Start an execution; an existing one of that id is returned as it is."""
        request = execution_pb.StartExecutionRequest(
            execution_id=execution_id, spec=wire.spec_to_proto(launch, self._job_id)
        )
        try:
            answer = await self._call(self._execution.StartExecution, request)
        except AlreadyExists:  # our id: started with the message that another version makes of the same launch
            if (run := await self.find(execution_id)) is None:
                raise
            return run
        return wire.run_from_proto(answer.execution)

    async def find(self, execution_id: str) -> Run | None:
        """Return an execution as it is now; None when it was never started."""
        request = execution_pb.GetExecutionRequest(execution_id=execution_id)
        try:
            answer = await self._call(self._execution.GetExecution, request)
        except NotFound:
            return None
        return wire.run_from_proto(answer.execution)

    async def wait(self, execution_id: str, *, until_started: bool = False) -> Run:
        """Wait for the end of an execution, or for its beginning, also across restarts of its service."""
        request = execution_pb.WaitExecutionRequest(
            execution_id=execution_id, timeout=Duration(seconds=int(_WAIT_SECONDS)), until_started=until_started
        )
        while True:
            answer = await self._call(self._execution.WaitExecution, request, _WAIT_SECONDS + _SHORT_SECONDS)
            run = wire.run_from_proto(answer.execution)
            if run.state.is_final or (until_started and run.state is not ExecutionState.PENDING):
                return run

    async def stop(self, execution_id: str) -> None:
        """Stop an execution. Does nothing when it has ended, or was never started."""
        request = execution_pb.StopExecutionRequest(execution_id=execution_id)
        try:
            await self._call(self._execution.StopExecution, request)
        except NotFound:
            return
        except FailedPrecondition as error:
            if error.reason != "EXECUTION_STATE":
                raise

    async def tail(self, run: Run, max_bytes: int) -> bytes:
        """Return the last bytes that an ended execution wrote, both streams interleaved, from a whole character on."""
        request = execution_pb.WatchEventsRequest(
            execution_id=run.execution_id, from_sequence=max(1, run.last_sequence - _TAIL_EVENTS)
        )

        async def read() -> bytes:
            parts: deque[bytes] = deque()
            size = 0
            call = self._execution.WatchEvents(request, timeout=_LONG_SECONDS, metadata=self._metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    for event in message.events:
                        parts.append(event.output.data)
                        size += len(event.output.data)
                    while size - len(parts[0] if parts else b"") > max_bytes:
                        size -= len(parts.popleft())
            data = b"".join(parts)
            return data if size == run.output_bytes <= max_bytes else without_cut_character(data[-max_bytes:])

        return await self._persist(read)

    async def _call(self, method: Callable[..., Awaitable[T]], request: object, seconds: float = _SHORT_SECONDS) -> T:
        async def once() -> T:
            return await method(request, timeout=seconds, metadata=self._metadata)

        return await self._persist(once)

    async def _keep(self, method: Callable[..., Awaitable[T]], request: object) -> T:
        """Call what keeps an agent's work: when the disk is full, it is made again until there is room."""

        async def once() -> T:
            return await method(request, timeout=_LONG_SECONDS, metadata=self._metadata)

        return await self._persist(once, waits_for_room=True)

    async def _persist(self, call: Callable[[], Awaitable[T]], *, waits_for_room: bool = False) -> T:
        async def checked() -> T:
            self._check()
            return await call()

        return await call_with_retries(
            checked, retry_limits=self._retry_limits, pause=self._pause, waits_for_room=waits_for_room
        )


def _bounded(files: Iterable[FileChange]) -> tuple[FileChange, ...]:
    """Keep the first files whose paths fit into _MAX_FILES_BYTES."""
    kept, size = [], 0
    for file in files:
        size += len(file.path) + len(file.old_path)
        if size > _MAX_FILES_BYTES:
            break
        kept.append(file)
    return tuple(kept)
