"""How a job ends when it does not succeed, and what a node's error means for it."""

import structlog

from services.common.errors import Invalid, ServiceError
from services.common.reasons import REASONS
from services.common.room import DISK_FULL, is_out_of_room
from services.lifecycle.model.outcome import Failure

# What only a machine's settings, or git, can judge: by the field that a node calls invalid, or what the field is in.
# Other bad input is refused at admission. No second try helps.
_INVALID = {"remote": "REMOTE_NOT_ALLOWED", "revision": "REVISION_NOT_FOUND", "branch": "INVALID_BRANCH"}

INTERNAL = Failure("INTERNAL", "something went wrong that should not have: the gateway's log has it, by the job's id")

_PASSED_ON = frozenset(REASONS) - {INTERNAL.reason}
"""Reasons of node services that mean something to the person who asked for the job. INTERNAL's text is not for them."""

log = structlog.get_logger()


class JobFailed(Exception):
    """The job cannot go on; it ends FAILED."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.reason}: {failure.message}")
        self.failure = failure


class JobCancelled(Exception):
    """Somebody cancelled the job."""


class Parked(Exception):
    """The job waits for a person. It is left as it is, and whoever claims it next continues it."""


def explained(error: ServiceError, stage: str) -> Failure:
    """Return what a node's refusal means for the job."""
    if is_out_of_room(error):  # whichever of the node's parts lacks it
        return Failure(DISK_FULL, error.message)
    if error.reason in _PASSED_ON:
        return Failure(error.reason, error.message)
    if isinstance(error, Invalid):
        for field, text in error.violations:
            whole, _, part = field.partition(".")
            if whole in _INVALID:
                return Failure(_INVALID[whole], f"the {whole}'s {part} {text}" if part else error.message)
    log.error("a node refused what it should not", stage=stage, reason=error.reason, error=error.message)
    return INTERNAL
