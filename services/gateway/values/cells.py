"""What is known of a cell. Times are in UTC, by the database's clock."""

import enum
from dataclasses import dataclass, field
from datetime import datetime


class CellKind(enum.StrEnum):
    """What a cell is; the names are those of the contract, without prefix."""

    GATEWAY = "GATEWAY"
    """A gateway with its node services, on this database."""
    COORDINATOR = "COORDINATOR"
    """A machine without access to it."""


class CellState(enum.StrEnum):
    """Where a cell stands; the names are those of the contract, without prefix."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    AWAY = "AWAY"


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

    @property
    def state(self) -> CellState:
        """Where it stands."""
        if self.is_away:
            return CellState.AWAY
        return CellState.PAUSED if self.paused else CellState.ACTIVE


@dataclass(frozen=True, slots=True)
class Queue:
    """What there is to do: jobs by state, and since when the oldest that waits does; None where none waits."""

    jobs: dict[str, int]
    oldest_wait_time: datetime | None


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who is connected to the database; the address is empty where that is on the same machine."""

    name: str
    address: str
    connections: int


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What a database says of itself. `latency` is in seconds; `schema_faults` are sentences."""

    kind: str
    server_version: str
    schema_version: str
    schema_faults: tuple[str, ...]
    latency: float
    clients: tuple[Client, ...]
