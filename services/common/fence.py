"""The fence of a job: a number that only grows, so that a driver that lost the job's lease cannot change it any more.

The driver of a job sends it with every call, in metadata; `rpc/layers` puts it where `current_fence` finds it, and
services refuse a lower number than they have seen, with `db/fences`.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from services.common.errors import Invalid
from services.common.ids import is_id

FENCE_METADATA_KEY = "boatyard-fence"

_CURRENT: ContextVar["Fence | None"] = ContextVar("boatyard_fence", default=None)


@dataclass(frozen=True, slots=True)
class Fence:
    """The `number`th lease (from 1) of a job."""

    job_id: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<job id>/<number>`. Raises Invalid."""
        job_id, _, number = text.partition("/")
        if not (is_id(job_id) and number.isascii() and number.isdigit() and 0 < int(number) < 2**63):
            raise Invalid([(FENCE_METADATA_KEY, "must be a job id, '/', and a number from 1")])
        return cls(job_id, int(number))

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number}"


def current_fence() -> Fence | None:
    """Return the fence of the call being served; None for an operator's call."""
    return _CURRENT.get()


def set_current_fence(fence: Fence | None) -> None:
    """Set the fence for the rest of this task. Called by the server's interceptor only."""
    _CURRENT.set(fence)
