"""The ids that a driver records, each of which is its own attempt's."""

from services.common.errors import Invalid
from services.lifecycle.ledger import Lease
from services.lifecycle.model.ids import is_of_attempt


def check_of_attempt(lease: Lease, some_id: str) -> None:
    """Raise Invalid for an id that is not the lease's attempt's: a machine could take one that another job will use."""
    own = lease.execution_id
    if not is_of_attempt(some_id, own):
        raise Invalid([("execution_id", f"{some_id!r} is not of this attempt: it must be {own}, or begin with {own}-")])
