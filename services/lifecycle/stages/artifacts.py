"""Artifacts: the files that the policy names, kept beside the result however the agent ended."""

from dataclasses import replace

from services.common.caveats import CaveatKind
from services.common.display import one_line
from services.lifecycle.model.node_work import Base, Layout
from services.lifecycle.model.output import ArtifactSummary, ExecutionNote
from services.lifecycle.run import KEEPING_SECONDS, JobRun
from services.lifecycle.stages.agent import left_behind

_TOLD = 3
_IN_SUBMODULES = frozenset({CaveatKind.SUBMODULE_CONTENT, CaveatKind.SUBMODULE_COMMITS})


async def take_artifacts(job: JobRun) -> None:
    """Keep what this round's agent left of the files that the policy names, and patches of what it did in submodules.

    Does nothing where there is neither. The result is taken before: it says whether it lacks anything of submodules.

    Raises JobFailed (TAKE_FAILED, RESULT_TOO_LARGE), and JobCancelled when the job is and this takes too long.
    """
    layout = job.recorded("workspace", Layout)
    in_submodules = any(caveat.kind in _IN_SUBMODULES for caveat in job.execution.output.caveats)
    wanted = in_submodules or job.spec.policy.artifacts
    if layout is None or not wanted or not job.has_begun(job.in_round("start")) or job.lacked_room:
        return

    async def keep() -> ArtifactSummary:
        taking = job.nodes.git.take_artifacts(
            layout,
            job.recorded("base", Base),
            job.spec,
            artifacts_id=job.agent_id,
            secrets=job.secrets,
            with_submodules=in_submodules,
            leave_out=left_behind(job),
        )
        return await job.unless_cancelled(taking, grace_seconds=KEEPING_SECONDS)

    def learn(note: ExecutionNote, summary: ArtifactSummary) -> ExecutionNote:
        return replace(note, output=replace(note.output, artifacts=summary))

    await job.step(job.in_round("artifacts"), ArtifactSummary, keep, learn, _told)


def _told(summary: ArtifactSummary) -> str:
    kept = f"{summary.total} kept, {summary.total_bytes} bytes"
    if not summary.total_omitted:
        return kept
    first = ", ".join(
        f"{one_line(each.name)} ({each.reason.lower().replace('_', ' ')})" for each in summary.omitted[:_TOLD]
    )
    more = summary.total_omitted - min(_TOLD, len(summary.omitted))
    return f"{kept}; not kept: {first}" + (f", and {more} more" if more else "")
