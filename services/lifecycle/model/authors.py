"""Whose name is on a job's commits: on the result, and on those that its agent makes by itself."""

from typing import Final

from services.common.display import one_line

EMAIL: Final = "noreply@boatyard.dev"

_NAME_BYTES = 255
_OUR_NAME = "Boatyard"


def author(worker_name: str) -> str:
    """Return the worker's name, cut to what a signature takes, or ours."""
    return one_line(worker_name).encode()[:_NAME_BYTES].decode(errors="ignore") or _OUR_NAME
