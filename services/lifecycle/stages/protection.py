"""Finds what a result changes of the paths that floors protect: a person is asked before it is pushed."""

from dataclasses import replace

from services.common.display import one_line
from services.lifecycle.model.floor import protected_paths
from services.lifecycle.model.node_work import Base, ProtectedChanges, ResultCommit
from services.lifecycle.run import JobRun
from services.lifecycle.stages.snapshot_bases import current


async def protected_changes(job: JobRun, base: Base, taken: ResultCommit) -> str:
    """Compare what is to be pushed with what the remote has; return what a person is told, or an empty text."""
    patterns = protected_paths(job.spec.floors)
    if not patterns:
        return ""

    async def look() -> ProtectedChanges:
        looking = job.nodes.git.changes_of(job.spec.repository_id, base.commit_id, taken.commit_id, patterns)
        found = await job.interruptible(looking)
        return replace(found, paths=tuple(map(job.redactor.bytes, found.paths)))

    return _told(await job.step(current(job, job.in_round("protected")), ProtectedChanges, look, tell=_told))


def _told(changes: ProtectedChanges) -> str:
    if not changes.total:
        return ""
    paths = ", ".join(one_line(path.decode(errors="surrogateescape")) for path in changes.paths)
    more = changes.total - len(changes.paths)
    return f"It changes protected paths: {paths}" + (f", and {more} more." if more else ".")
