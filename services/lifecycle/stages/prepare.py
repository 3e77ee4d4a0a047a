"""Prepares what an agent starts in: a tree of the repository, in a workspace, on its own branch."""

from collections.abc import Sequence
from dataclasses import replace

from services.lifecycle.failures import JobFailed
from services.lifecycle.model.job_context import FileContent, Remote
from services.lifecycle.model.job_spec import INPUT_DATA, INPUT_DIRECTORY, JobSpec
from services.lifecycle.model.node_work import Base, Layout
from services.lifecycle.model.outcome import Failure, Nothing
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.run import JobRun
from services.lifecycle.stages.snapshot_bases import corrected


async def prepare_base(job: JobRun, remote: Remote) -> Base:
    """Update the mirror, and prepare the tree that the job starts from. Raises JobFailed (CLONE_FAILED, …).

    From a snapshot, it is the snapshot's tree; results are compared with the commit that the snapshot goes back to.
    """

    async def prepare() -> Base:
        preparing = job.nodes.prepare_base(remote, revision=job.spec.revision, snapshot_id=job.start_snapshot_id)
        base = await job.interruptible(preparing)
        if job.start_snapshot_id and not base.head_commit_id:  # it took the snapshot for no revision at all
            raise JobFailed(Failure("NODE_LOST", "the cell's git service is of an earlier version: restart it"))
        return base

    def learn(note: ExecutionNote, base: Base) -> ExecutionNote:
        return replace(note, output=replace(note.output, base_commit_id=base.commit_id, branch=job.spec.branch))

    base = await job.step("base", Base, prepare, learn)
    return await corrected(job, base, prepare) if job.start_snapshot_id and not base.head_commit_id else base


async def make_workspace(job: JobRun, base: Base | None, files: Sequence[FileContent] = ()) -> Layout:
    """Make the agent's workspace, from the base or empty, with the job's input. Raises JobFailed (DISK_FULL)."""
    given = _input(job.spec, files)
    return await job.step(
        "workspace",
        Layout,
        lambda: job.interruptible(job.nodes.create_workspace(job.workspace_id, base, job.spec, given)),
        lambda note, _: replace(note, workspace_id=job.workspace_id),
    )


def _input(spec: JobSpec, files: Sequence[FileContent]) -> dict[str, bytes]:
    """Return the job's input files in its workspace: contents by path."""
    given = {f"{INPUT_DIRECTORY}/{file.name}": file.data for file in files}
    return given | ({INPUT_DATA: spec.data} if spec.data else {})


async def make_branch(job: JobRun, layout: Layout, base: Base) -> None:
    """Put the workspace on the result's branch. Raises JobFailed (BRANCH_EXISTS, INVALID_BRANCH)."""

    async def make() -> Nothing:
        await job.nodes.create_branch(layout, base, job.spec.agent.tier, job.spec.branch)
        return Nothing()

    await job.step("branch", Nothing, make)
