"""Prepares what an agent starts in: a tree of the repository, in a workspace, on its own branch."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from services.lifecycle.failures import JobFailed
from services.lifecycle.model.job_context import FileContent, Remote
from services.lifecycle.model.job_spec import ASK_FILE, INPUT_DATA, INPUT_DIRECTORY, JobSpec
from services.lifecycle.model.node_work import Base, Layout
from services.lifecycle.model.outcome import Failure, Nothing
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.run import JobRun
from services.lifecycle.stages.caveats import check_base, in_words, recordable
from services.lifecycle.stages.snapshot_bases import corrected

_NEW_HOME: Final = "the agent begins with an empty HOME: none of an earlier attempt is here, or it is too large"


async def prepare_base(job: JobRun, remote: Remote | None, pushed_before: Collection[str]) -> Base:
    """Prepare the tree that the job starts from: of its remote, whose mirror is updated first, or without files.

    From a snapshot, it is the snapshot's tree; results are compared with the commit that the snapshot goes back to.
    A result that is to be pushed must have a branch to go to: that is found out here, before an agent has worked. And
    so is what the tree lacks, where a policy does not accept that. Raises JobFailed (BASE_INCOMPLETE, …).
    """

    def learn(note: ExecutionNote, base: Base) -> ExecutionNote:
        output = replace(note.output, base_commit_id=base.commit_id, branch=job.spec.branch, caveats=base.caveats)
        return replace(note, output=output)

    async def prepare() -> Base:
        base = await _prepare(job, remote)
        if remote is not None and job.spec.is_published:
            await job.nodes.git.check_push(remote, base.commit_id, job.spec.branch, pushed_before)
        return replace(base, caveats=recordable(job, base.caveats))

    base = await job.step(
        "base", Base, lambda: job.interruptible(prepare()), learn, lambda base: in_words(base.caveats)
    )
    check_base(job, base.caveats)
    if job.start_snapshot_id and not base.head_commit_id:
        return await corrected(job, base, lambda: job.interruptible(_prepare(job, remote)))
    return base


async def _prepare(job: JobRun, remote: Remote | None) -> Base:
    if remote is None:
        return await job.nodes.git.prepare_empty_base(job.spec.kept_under, snapshot_id=job.start_snapshot_id)
    if job.spec.kept is not None:
        return await job.nodes.git.prepare_base(remote, job.spec.policy, revision=job.spec.kept.base_commit_id.encode())
    base = await job.nodes.git.prepare_base(
        remote, job.spec.policy, revision=job.spec.revision, snapshot_id=job.start_snapshot_id
    )
    if job.start_snapshot_id and not base.head_commit_id:  # it took the snapshot for no revision at all
        raise JobFailed(Failure("NODE_LOST", "the cell's git service is of an earlier version: restart it"))
    return base


async def tree_of(job: JobRun, remote: Remote | None, commit_id: str) -> Base:
    """Prepare the tree of a commit that was taken from this or an earlier job."""
    if remote is None:
        return await job.nodes.git.prepare_empty_base(job.spec.kept_under, result_commit_id=commit_id)
    return await job.nodes.git.prepare_base(remote, job.spec.policy, result_commit_id=commit_id)


async def make_workspace(job: JobRun, base: Base, files: Sequence[FileContent] = ()) -> Layout:
    """Make the agent's workspace, with the job's input. Raises JobFailed (DISK_FULL).

    It is made from the base, or is an empty directory where the job has neither a repository nor a snapshot.
    """
    is_empty = not (job.spec.repository_id or job.start_snapshot_id)
    given = _input(job.spec, files)
    return await job.step(
        "workspace",
        Layout,
        lambda: job.interruptible(
            job.nodes.workspaces.create(
                job.workspace_id, base, job.spec, given, is_empty=is_empty, attempt=job.lease.attempt
            )
        ),
        lambda note, _: replace(note, workspace_id=job.workspace_id),
        lambda layout: _NEW_HOME if job.lease.attempt > 1 and layout.home and not layout.home_is_kept else "",
    )


def _input(spec: JobSpec, files: Sequence[FileContent]) -> dict[str, bytes]:
    """Return the job's files in its workspace: contents by path. Where its agent may ask, it only has to write."""
    given = {f"{INPUT_DIRECTORY}/{file.name}": file.data for file in files}
    given |= {ASK_FILE: b""} if spec.policy.agent_may_ask else {}
    return given | ({INPUT_DATA: spec.data} if spec.data else {})


async def make_branch(job: JobRun, layout: Layout, base: Base) -> None:
    """Put the workspace on the result's branch. Raises JobFailed (BRANCH_EXISTS, INVALID_BRANCH)."""

    async def make() -> Nothing:
        await job.nodes.git.create_branch(layout, base, job.spec.agent.tier, job.spec.branch)
        return Nothing()

    await job.step("branch", Nothing, make)
