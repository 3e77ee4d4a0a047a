"""What is known of a cell. Times are in UTC, by the database's clock."""

import enum
from dataclasses import dataclass, field
from datetime import datetime

from services.agent.allowance import Allowance
from services.lifecycle.model.condition import Trouble


class CellKind(enum.StrEnum):
    """What a cell is. The names are those of the contract, without prefix."""

    GATEWAY = "GATEWAY"
    """A gateway with its node services, on this database."""
    COORDINATOR = "COORDINATOR"
    """A machine without access to the database."""


class CellState(enum.StrEnum):
    """The state of a cell. The names are those of the contract, without prefix."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    AWAY = "AWAY"
    AWAY_PAUSED = "AWAY_PAUSED"
    NOT_READY = "NOT_READY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A machine that takes jobs."""

    cell_id: str
    kind: CellKind = CellKind.GATEWAY
    host: str
    version: str
    capacity: int
    """How many jobs it runs at once."""
    address: str
    """Where other gateways reach this cell's gateway, host:port; empty when they cannot."""
    peer_token: str = field(repr=False)
    """The token that other gateways show to this cell's gateway; renewed at every start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView(Cell):
    """A cell with its current status."""

    paused: bool
    running_jobs: int
    start_time: datetime
    beat_time: datetime
    allowance: Allowance | None
    """What it lets jobs choose; None while its node has not said it."""
    troubles: tuple[Trouble, ...]
    """What keeps it from taking new jobs."""
    is_away: bool
    """True when it has not been heard of for so long that its jobs are taken over."""

    @property
    def state(self) -> CellState:
        """The state of the cell."""
        if self.is_away:
            return CellState.AWAY_PAUSED if self.paused else CellState.AWAY
        if self.paused:
            return CellState.PAUSED
        return CellState.NOT_READY if self.troubles else CellState.ACTIVE


@dataclass(frozen=True, slots=True)
class Queue:
    """How many jobs are in each state, and since when the oldest waiting job waits: None when no job waits."""

    jobs: dict[str, int]
    oldest_wait_time: datetime | None


@dataclass(frozen=True, slots=True)
class Client:
    """A client that is connected to the database. The address is empty for a client on the database's own machine."""

    name: str
    address: str
    connections: int


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What a database reports of itself. `latency` is in seconds; `schema_faults` are sentences."""

    kind: str
    server_version: str
    schema_version: str
    schema_faults: tuple[str, ...]
    latency: float
    clients: tuple[Client, ...]
