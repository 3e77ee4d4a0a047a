"""Cleanup: the content of a workspace is kept as a snapshot, and the workspace for a while, or not at all."""

from dataclasses import replace

from services.lifecycle.model.ids import snapshot_of
from services.lifecycle.model.node_work import Layout, Snapshot
from services.lifecycle.model.outcome import Nothing
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import JobState, Retention
from services.lifecycle.run import KEEPING_SECONDS, JobRun
from services.lifecycle.stages.agent import left_behind
from services.lifecycle.stages.caveats import recordable
from services.lifecycle.stages.snapshot_bases import recorded_base

_UNTIL_REMOVED_SECONDS = 100 * 365 * 86400.0


async def keep_state(job: JobRun) -> None:
    """Keep a snapshot of the workspace of a job that has not succeeded, before it is released.

    It holds all that differs from what the job's result would be compared with. If nothing does, that is worth a
    snapshot only after one: else the next attempt would begin with what this one has undone.

    Raises JobFailed, and JobCancelled when the job is cancelled and this takes too long.
    """
    layout, base = job.recorded("workspace", Layout), recorded_base(job)
    if layout is None or base is None or not job.has_begun("start") or job.lacked_room:
        return  # there was no agent, or nothing that git could compare
    # The message does not say how the job ended: after a kill it may end otherwise, with the same snapshot id.
    snapshot_id = snapshot_of(job.execution_id)
    message = f"What job {job.spec.job_id} left in its workspace\n"

    async def keep() -> Snapshot:
        keeping = job.nodes.git.snapshot(
            layout, base, job.spec, snapshot_id=snapshot_id, message=message, leave_out=left_behind(job)
        )
        kept = await job.unless_cancelled(keeping, grace_seconds=KEEPING_SECONDS)
        return replace(kept, caveats=recordable(job, kept.caveats))

    def named(kept: Snapshot) -> str:
        return kept.snapshot_id if kept.changed or job.start_snapshot_id else ""

    def learn(note: ExecutionNote, kept: Snapshot) -> ExecutionNote:
        output = replace(note.output, snapshot_id=named(kept))
        if not output.commit_id:
            output = replace(output, caveats=(*base.caveats, *kept.caveats))
        return replace(note, output=output)

    def tell(kept: Snapshot) -> str:
        return "; ".join((named(kept) or "nothing had changed", *map(str, kept.caveats)))

    await job.step("snapshot", Snapshot, keep, learn, tell)


async def clean_up(job: JobRun, state: JobState) -> None:
    """Remove the agent's workspace, or record how its work ended and how long it is kept.

    A workspace of which no snapshot could be taken stays until somebody removes it: it has the only copy.
    """
    seconds = _kept_seconds(job, state)

    async def clean() -> Nothing:
        if seconds:
            await job.nodes.workspaces.close(
                job.workspace_id, failed=state is not JobState.SUCCEEDED, keep_seconds=seconds
            )
        else:
            await job.nodes.workspaces.delete(job.workspace_id)
        return Nothing()

    def learn(note: ExecutionNote, _: Nothing) -> ExecutionNote:
        return replace(note, workspace_id=note.workspace_id if seconds else "")

    await job.step("cleanup", Nothing, clean, learn, lambda _: _told(seconds))


def _kept_seconds(job: JobRun, state: JobState) -> float:
    """Return how many seconds the workspace is kept; 0 removes it."""
    if job.has_begun("snapshot") and job.recorded("snapshot", Snapshot) is None:
        return _UNTIL_REMOVED_SECONDS
    seconds = job.retention_periods.after(state)
    match job.spec.policy.retention:
        case Retention.REMOVE:
            return 0.0
        case Retention.KEEP:
            return seconds
        case Retention.KEEP_FAILED:
            return 0.0 if state is JobState.SUCCEEDED else seconds


def _told(seconds: float) -> str:
    if seconds >= _UNTIL_REMOVED_SECONDS:
        return "the workspace is kept until somebody removes it: what is in it could not be kept as a snapshot"
    return f"the workspace is kept for {seconds / 3600:g} h" if seconds else ""
