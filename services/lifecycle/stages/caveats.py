"""In what a base or a result differs from what it was made of: what is recorded of that, and what a job makes of it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from services.common.caveats import CaveatKind
from services.lifecycle.failures import JobFailed
from services.lifecycle.model.outcome import Failure
from services.lifecycle.model.output import Caveat
from services.lifecycle.model.states import Incomplete
from services.lifecycle.run import JobRun
from services.redaction.gaps import around_gaps, text_around_gaps
from services.redaction.strand import Redactor

_UNREACHABLE: Final = "REMOTE_UNREACHABLE"
_MAX_PATHS: Final = 20
_MAX_PATHS_BYTES: Final = 4096


def recordable(job: JobRun, caveats: Iterable[Caveat]) -> tuple[Caveat, ...]:
    """Return caveats with their first paths, without the job's secrets, which the agent may have written anywhere."""
    return without_secrets(job.redactor, caveats)


def without_secrets(redactor: Redactor, caveats: Iterable[Caveat]) -> tuple[Caveat, ...]:
    """Return caveats with their first paths, and without what a redactor finds."""
    return tuple(
        replace(
            caveat,
            paths=tuple(_first(around_gaps(redactor, path) for path in caveat.paths[:_MAX_PATHS])),
            detail=text_around_gaps(redactor, caveat.detail),
        )
        for caveat in caveats
    )


def in_words(caveats: Iterable[Caveat]) -> str:
    """Return caveats for the timeline, in one line."""
    return "; ".join(map(str, caveats))


def check_base(job: JobRun, caveats: Iterable[Caveat]) -> None:
    """Raise JobFailed (BASE_INCOMPLETE, REMOTE_UNREACHABLE) when a policy wants all that a base lacks some of.

    Pointers that the policy itself wants are not lacking. A result that is kept has had its agent already.
    """
    policy = job.spec.policy
    if policy.incomplete is not Incomplete.STRICT or job.spec.kept is not None:
        return
    lacking = [
        each for each in caveats if each.is_lack and (policy.git_lfs or each.kind is not CaveatKind.LFS_POINTERS)
    ]
    words = f"the agent would not find all of the repository: {in_words(lacking)}"
    # The git service names the reason for which it could not ask: a second try may find what this one did not.
    if any(_UNREACHABLE in each.detail for each in lacking):
        raise JobFailed(Failure(_UNREACHABLE, words))
    if lacking:
        raise JobFailed(Failure("BASE_INCOMPLETE", words))


def check_complete(job: JobRun) -> None:
    """Raise JobFailed (RESULT_INCOMPLETE) when work is missing from the result, unless the policy accepts that."""
    if job.execution.output.incomplete and job.spec.policy.incomplete is not Incomplete.ACCEPT:
        lacking = in_words(caveat for caveat in job.execution.output.caveats if caveat.is_loss)
        raise JobFailed(Failure("RESULT_INCOMPLETE", f"the result is not all that the agent left: {lacking}"))


def _first(paths: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the first paths that fit into _MAX_PATHS_BYTES."""
    size = 0
    for path in paths:
        size += len(path)
        if size > _MAX_PATHS_BYTES:
            return
        yield path
