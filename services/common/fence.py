"""The fence of a job: a number that only grows, so that whoever lost a job's lease can do nothing more to it.

Whoever drives a job sends it with every call, in metadata; `rpc/layers` puts it where `current_fence` finds it,
and a service that changes something has `db/fences` refuse a lower number than it has seen.
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
    """Set the fence for the rest of this task; the server's interceptor does, nobody else need."""
    _CURRENT.set(fence)
