"""What is known of a cell. Times are in UTC, by the database's clock."""

import enum
from dataclasses import dataclass, field
from datetime import datetime

LEASES_UNTIL_AWAY = 3
"""After so many leases without a beat a cell counts as away: what is left of its jobs is taken over."""


class CellKind(enum.StrEnum):
    """What a cell is; the names are those of the contract, without prefix."""

    GATEWAY = "GATEWAY"
    """A gateway with its node services, on this database."""
    COORDINATOR = "COORDINATOR"
    """A machine without access to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A machine that takes jobs."""

    cell_id: str
    kind: CellKind = CellKind.GATEWAY
    host: str
    version: str
    capacity: int
    """How many jobs it carries at once."""
    address: str
    """Where other gateways reach its own, host:port; empty where they cannot."""
    peer_token: str = field(repr=False)
    """What they show to it: a new one at every start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView(Cell):
    """A cell as it is now."""

    paused: bool
    running_jobs: int
    start_time: datetime
    beat_time: datetime
    is_away: bool
    """Whether it has not been heard of for so long that its jobs are taken over."""
