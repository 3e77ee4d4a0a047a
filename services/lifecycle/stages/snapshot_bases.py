"""Corrects the bases of attempts that the version before decision 47 began from a snapshot.

That version compared with the snapshot's own commit: a person was shown less than what would be pushed. Nothing writes
such a base any more; this goes with the release that no longer takes over jobs of that version.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from services.lifecycle.model.ids import step_in
from services.lifecycle.model.node_work import Base
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.value import Recorded
from services.lifecycle.run import JobRun

_STEP = "base-of-snapshot"
_LOOK_AT_THE_RESULT = ("diff", "protected", "approval-push")


@dataclass(frozen=True, slots=True)
class CorrectedBase(Recorded):
    """What results are compared with after all, and the steps that had compared with something else already."""

    commit_id: str
    outdated: tuple[str, ...] = ()


async def corrected(job: JobRun, base: Base, prepare: Callable[[], Awaitable[Base]]) -> Base:
    """Return the base with the commit that `prepare` finds, unless the job is past its push. Raises what `step` does.

    HEAD stays where it is: at the snapshot's commit, which becomes part of the result's history.
    """
    if job.has_begun("push") and not job.has_begun(_STEP):
        return base

    async def look() -> CorrectedBase:
        steps = (step_in(name, job.rounds_begun) for name in _LOOK_AT_THE_RESULT)
        return CorrectedBase((await prepare()).commit_id, tuple(filter(job.has_begun, steps)))

    def learn(note: ExecutionNote, found: CorrectedBase) -> ExecutionNote:
        return replace(note, output=replace(note.output, base_commit_id=found.commit_id))

    found = await job.step(_STEP, CorrectedBase, look, learn)
    return replace(base, commit_id=found.commit_id)


def recorded_base(job: JobRun) -> Base | None:
    """Return the base that the job's workspace was made from, with the commit that its result is compared with."""
    base, found = job.recorded("base", Base), job.recorded(_STEP, CorrectedBase)
    return base if base is None or found is None else replace(base, commit_id=found.commit_id)


def is_outdated(job: JobRun, name: str) -> bool:
    """True when what is recorded of a step looked at less than the whole result: it is to be done again."""
    found = job.recorded(_STEP, CorrectedBase)
    return found is not None and name in found.outdated


def current(job: JobRun, name: str) -> str:
    """Return what a step is called that looks at the whole result."""
    return f"{name}-anew" if is_outdated(job, name) else name
