"""Git in the workspaces that jobs have left on this cell: status, diff, branch, commit, and push by their jobs."""

import asyncio
import time
from collections.abc import AsyncGenerator

from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import FailedPrecondition, ServiceError
from services.common.rpc.streaming import streaming
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.submission_wire import branch_from_proto
from services.gateway.jobs.workspaces import WorkspaceOrigin, origin_of
from services.gateway.ledger.inputs import read_remote
from services.gateway.routing.peers import LONGEST_SECONDS
from services.gateway.runtime import wire
from services.gateway.runtime.wire import answer_of, node_refusals
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.jobs import JobView
from services.gateway.values.principal import current_principal
from services.lifecycle.model.authors import author
from services.lifecycle.model.job_spec import KeptResult
from services.lifecycle.model.node_work import Layout
from services.lifecycle.nodes import Nodes
from services.lifecycle.nodes.git import left_out, result_request
from services.lifecycle.nodes.wire import RESULT, layout_from_proto, signature_to_proto, working_tree_to_proto
from services.lifecycle.secrets import job_redactor
from services.lifecycle.stages.caveats import without_secrets
from services.redaction.strand import Flow

_PATIENCE_SECONDS = 10.0
"""How long to wait for a sandbox of another call, or of the call before: it holds the workspace until it has ended."""
_PAUSE_SECONDS = 0.05


class WorkspaceGit:
    """Runs git in workspaces in which no agent works. What it says of files is without the job's secrets.

    Every method raises NotFound for a workspace that is no job's or is gone, FailedPrecondition (WORKSPACE_HELD,
    WORKSPACE_IN_USE) while its job works in it or a sandbox stays in it, and what the git service refuses.
    """

    def __init__(self, engine: AsyncEngine, nodes: Nodes, retries: Retries, cell_id: str) -> None:
        self._engine = engine
        self._retries = retries
        self._cell_id = cell_id
        self._workspace = WorkspaceServiceStub(nodes.workspace)
        self._git = GitServiceStub(nodes.git)

    async def status(self, request: pb.GetWorkspaceStatusRequest) -> pb.GetWorkspaceStatusResponse:
        """Return HEAD, and a page of the paths that differ from it."""
        origin, tree = await self._open(request.workspace_id)
        asked = git_pb2.GetStatusRequest(tree=tree, page_size=request.page_size, page_token=request.page_token)
        found = await answer_of(self._git.GetStatus(asked, timeout=LONGEST_SECONDS))
        head = await answer_of(
            self._git.GetCurrentBranch(git_pb2.GetCurrentBranchRequest(tree=tree), timeout=LONGEST_SECONDS)
        )
        redactor = job_redactor(origin.secrets)
        for entry in found.entries:
            for name in ("path", "old_path"):
                setattr(entry, name, redactor.text(getattr(entry, name)))
                setattr(entry, f"raw_{name}", redactor.bytes(getattr(entry, f"raw_{name}")))
        return wire.same_fields(found, pb.GetWorkspaceStatusResponse, branch=head.branch, commit_id=head.commit_id)

    async def diff(self, workspace_id: str) -> AsyncGenerator[bytes, None]:
        """Yield the difference between the files and HEAD, in pieces."""
        origin, tree = await self._open(workspace_id)
        clean = Flow(job_redactor(origin.secrets))
        with node_refusals():
            async with streaming(self._git.GetDiff(git_pb2.GetDiffRequest(tree=tree))) as messages:
                async for message in messages:
                    if data := clean.take(message.data):
                        yield data
        if data := clean.take(b"", last=True):
            yield data

    async def create_branch(self, request: pb.BranchWorkspaceRequest) -> str:
        """Make a branch at HEAD, or at another commit, and switch to it; return the commit."""
        _, tree = await self._open(request.workspace_id)
        branch = branch_from_proto(request.branch).decode()
        asked = git_pb2.CreateBranchRequest(tree=tree, branch=branch, commit_id=request.commit_id)
        return (await answer_of(self._git.CreateBranch(asked, timeout=LONGEST_SECONDS))).commit_id

    async def commit(self, workspace_id: str, message: str) -> str:
        """Commit all changes as the caller's, and return the commit. It is dated by the job, as results are."""
        origin, tree = await self._open(workspace_id)
        staged = git_pb2.StageAllRequest(tree=tree, leave_out=left_out(origin.spec, origin.leave_out))
        await answer_of(self._git.StageAll(staged, timeout=LONGEST_SECONDS))
        signature = signature_to_proto(author(current_principal().name), origin.spec.create_time)
        asked = git_pb2.CommitRequest(tree=tree, message=message, signature=signature)
        return (await answer_of(self._git.Commit(asked, timeout=LONGEST_SECONDS))).commit_id

    async def push(self, workspace_id: str, branch: bytes, key: IdempotencyKey | None) -> JobView:
        """Take the workspace as its job's result, and have the job publish it, as Retries.push does.

        So all that binds a result of an agent binds what a person has made of it: floors, checks and approvals.
        """
        job_id = (await origin_of(self._engine, workspace_id)).spec.job_id
        if (queued := await self._retries.answered(job_id, key)) is not None:
            return queued
        origin, layout = await self._origin(workspace_id)
        spec, base = origin.spec, origin.base
        if not spec.repository_id or base is None:
            raise _nothing(workspace_id, "its job has no repository")
        async with self._engine.begin() as connection:
            remote = await read_remote(connection, spec.repository_id)
        asked = result_request(
            layout,
            base,
            spec,
            result_id=workspace_id,
            message=f"What workspace {workspace_id} has\n\nBoatyard-Job: {spec.job_id}\n",
            author=author(current_principal().name),
            remote=remote,
            leave_out=origin.leave_out,
        )
        taken = RESULT.from_proto(await answer_of(self._git.TakeResult(asked, timeout=LONGEST_SECONDS)))
        if taken.commit_id == base.commit_id:
            raise _nothing(workspace_id, "nothing in it differs from what its job began from")
        caveats = without_secrets(job_redactor(origin.secrets), taken.caveats)
        kept = KeptResult(taken.commit_id, base.commit_id, taken.agent_commits, caveats)
        return await self._retries.push(spec.job_id, branch=branch, result=(kept, self._cell_id), key=key)

    async def _open(self, workspace_id: str) -> tuple[WorkspaceOrigin, git_pb2.WorkingTree]:
        """Return a workspace's origin, and how the git service names it, once nothing holds the workspace."""
        origin, layout = await self._origin(workspace_id)
        return origin, working_tree_to_proto(layout, origin.base, origin.spec.agent.tier)

    async def _origin(self, workspace_id: str) -> tuple[WorkspaceOrigin, Layout]:
        asked = workspace_pb2.GetWorkspaceRequest(workspace_id=workspace_id)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            workspace = (await answer_of(self._workspace.GetWorkspace(asked))).workspace
            origin = await origin_of(self._engine, workspace_id)
            if not origin.is_live and not workspace.held_by:
                return origin, layout_from_proto(workspace.layout)
            if origin.is_live or time.monotonic() > deadline:
                raise _in_use(workspace, origin)
            await asyncio.sleep(_PAUSE_SECONDS)


def _in_use(workspace: workspace_pb2.Workspace, origin: WorkspaceOrigin) -> ServiceError:
    workspace_id, job_id = workspace.workspace_id, origin.spec.job_id
    if workspace.held_by or origin.agent_runs:
        holder = workspace.held_by or f"the agent of job {job_id}"
        message = f"workspace {workspace_id!r} is held by {holder}: wait for its end, or cancel it"
        return FailedPrecondition(
            "WORKSPACE_HELD", message, workspace_id, metadata={"holder": holder, "job_id": job_id}
        )
    message = f"job {job_id} works in workspace {workspace_id!r}: wait for its end, or cancel it"
    return FailedPrecondition("WORKSPACE_IN_USE", message, workspace_id, metadata={"job_id": job_id})


def _nothing(workspace_id: str, why: str) -> ServiceError:
    return FailedPrecondition("NO_RESULT", f"workspace {workspace_id!r} has nothing to push: {why}", workspace_id)
