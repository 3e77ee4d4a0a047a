"""What becomes of the workspace when all is over."""

from dataclasses import replace

from services.lifecycle.model.outcome import Nothing
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import JobState, Retention
from services.lifecycle.run import JobRun


async def clean_up(job: JobRun, state: JobState) -> None:
    """Remove the agent's workspace, or record how its work went, as the policy wants. No end changes by it."""
    remove = _is_removed(job.order.policy.retention, state)

    async def clean() -> Nothing:
        if remove:
            await job.nodes.delete_workspace(job.workspace_id)
        else:
            await job.nodes.close_workspace(job.workspace_id, failed=state is not JobState.SUCCEEDED)
        return Nothing()

    def learn(note: ExecutionNote, _: Nothing) -> ExecutionNote:
        return replace(note, workspace_id="" if remove else note.workspace_id)

    await job.step("cleanup", Nothing, clean, learn)


def _is_removed(retention: Retention, state: JobState) -> bool:
    match retention:
        case Retention.REMOVE:
            return True
        case Retention.KEEP:
            return False
        case Retention.KEEP_FAILED:
            return state is JobState.SUCCEEDED
