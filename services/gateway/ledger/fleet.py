"""What is known of the cells: which are alive, what they let jobs choose, and which jobs a cell leaves to others.

What a cell's node has not said yet is None: it may allow anything. A coordinator that says nothing has the default.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, and_, case, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.agent.allowance import DEFAULT_ALLOWANCE, Allowance
from services.agent.limits import Limits, covers
from services.agent.settings import AgentSettings
from services.common.db.columns import as_number
from services.gateway.ledger.agents import Agents, agents_of_column, lack, preset_of
from services.gateway.ledger.agents import left_to_others as left_of_agents
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import IS_LIVE, jobs
from services.gateway.values.cells import CellKind
from services.lifecycle.model.condition import Trouble
from services.sandbox.spec import Network, Tier

ANYTHING: Final = Allowance.of(tuple(Tier), tuple(Network))
"""What a cell may allow that has not said it."""
CHOICES: Final = (jobs.c.sandbox_tier, jobs.c.network, jobs.c.limits)
"""What a job has chosen of what cells allow."""
AWAY_LEASES: Final = 3
"""A cell that has not beaten for this many leases is away: leases of its own, as its row has them."""
_TROUBLES: Final = TypeAdapter(tuple[Trouble, ...])

_SAID: Final = (cells.c.allowed_tiers, cells.c.allowed_networks, cells.c.limits)
_A_LEASE_SECONDS: Final = 20.0
"""What is taken for the lease of a cell that has not said its own."""
_LIMITS_ASKED: Final = select(jobs.c.limits).where(IS_LIVE).distinct()


def is_alive(lease_seconds: float = _A_LEASE_SECONDS) -> ColumnElement[bool]:
    """Return the condition that a cell is not away. `lease_seconds` is for one whose lease is not known."""
    lease = case((cells.c.lease_ms > 0, cells.c.lease_ms * 1000), else_=round(lease_seconds * 1_000_000))
    return as_number(cells.c.beat_time) >= now() - AWAY_LEASES * lease


_AT_WORK: Final = and_(is_alive(), cells.c.capacity > 0, cells.c.kind == CellKind.GATEWAY)
_MEMBERS: Final = select(
    cells.c.cell_id, cells.c.paused, cells.c.troubles, _AT_WORK, cells.c.agents, cells.c.kind, *_SAID
)


@dataclass(frozen=True, slots=True)
class Member:
    """A cell, as far as it matters for which jobs it takes."""

    cell_id: str
    takes_new_jobs: bool
    """False when it is paused, or has troubles: it goes on with the jobs that it has begun, and takes no others."""
    is_at_work: bool
    """True when it is alive and takes jobs of any project: a coordinator may take only those of some."""
    allowance: Allowance | None
    agents: Agents | None

    def allows(self, agent: AgentSettings) -> bool:
        """True when it lets a job choose what this agent's has chosen, as far as that is known."""
        allowance = self.allowance or ANYTHING
        return allowance.allows(agent.tier, agent.network or Network.NONE, Limits.of(agent))

    def could_take(self, agent: AgentSettings) -> bool:
        """True when it would take a job with this agent now, as soon as it has room."""
        has_agent = not lack(self.agents, preset_of(agent))
        return self.is_at_work and self.takes_new_jobs and self.allows(agent) and has_agent


def allowance_of_columns(kind: str, tiers: str | None, networks: str | None, limits: str) -> Allowance | None:
    """Read what a row of `cells` allows; None while that is not known."""
    if tiers is None or networks is None:
        return DEFAULT_ALLOWANCE if kind == CellKind.COORDINATOR else None
    known_tiers, known_networks = set(tiers.split(",")), set(networks.split(","))
    return Allowance.of(  # what only a later version knows is left out: nothing here could ask for it
        {tier for tier in Tier if tier in known_tiers},
        {network for network in Network if network in known_networks},
        Limits.recorded(limits),
    )


def allowance_to_columns(allowance: Allowance | None) -> dict[str, str | None]:
    """Write what a cell allows into columns of `cells`."""
    return {
        "allowed_tiers": None if allowance is None else ",".join(sorted(allowance.tiers)),
        "allowed_networks": None if allowance is None else ",".join(sorted(allowance.networks)),
        "limits": "" if allowance is None else str(allowance.limits),
    }


def choices_to_columns(agent: AgentSettings) -> dict[str, str]:
    """Write what a job has chosen of what cells allow into columns of `jobs`."""
    network = agent.network or Network.NONE
    chosen = {"sandbox_tier": agent.tier, "network": network, "limits": str(Limits.of(agent))}
    return chosen | {"preset": preset_of(agent)}


def troubles_of_column(text: str) -> tuple[Trouble, ...]:
    """Read what keeps a cell from taking jobs."""
    return _TROUBLES.validate_json(text) if text else ()


def troubles_to_column(troubles: tuple[Trouble, ...]) -> str:
    """Write what keeps a cell from taking jobs."""
    return _TROUBLES.dump_json(troubles, ensure_ascii=True).decode() if troubles else ""


async def members(connection: AsyncConnection) -> list[Member]:
    """Return all cells that are not forgotten, those that are away among them."""
    rows = (await connection.execute(_MEMBERS)).all()
    return [
        Member(
            cell_id,
            takes_new_jobs=not paused and not troubles,
            is_at_work=bool(at_work),
            allowance=allowance_of_columns(kind, *allowance),
            agents=agents_of_column(agents),
        )
        for cell_id, paused, troubles, at_work, agents, kind, *allowance in rows
    ]


def agents_left_to_others(cell_id: str, fleet: Collection[Member]) -> list[str]:
    """Return the names of the agents that a cell lacks and others have."""
    own = next((each.agents for each in fleet if each.cell_id == cell_id), None)
    return left_of_agents(own, [each.agents for each in fleet if each.cell_id != cell_id])


async def left_to_others(connection: AsyncConnection, cell_id: str, fleet: Collection[Member]) -> list[tuple[str, ...]]:
    """Return what a cell leaves to other cells, because they allow it and this one does not, as values of CHOICES.

    Of limits too, where those are different. What nobody allows any more is left to nobody: whoever takes it ends it
    with the refusal of its node.
    """
    own = next((each.allowance for each in fleet if each.cell_id == cell_id), None) or DEFAULT_ALLOWANCE
    others = [each.allowance or ANYTHING for each in fleet if each.cell_id != cell_id]
    others = [other for other in others if not own.covers(other)]
    are_of_limits = not all(covers(own.limits, other.limits) for other in others)
    asked = await _limits_asked(connection) if are_of_limits else [""]
    count = len(CHOICES) if are_of_limits else len(CHOICES) - 1
    return [choice[:count] for choice in product(Tier, Network, asked) if _is_beyond(choice, own, others)]


async def _limits_asked(connection: AsyncConnection) -> Sequence[str]:
    """Return what the jobs that may be claimed have asked for, each once."""
    return (await connection.execute(_LIMITS_ASKED)).scalars().all()


def _is_beyond(choice: tuple[Tier, Network, str], own: Allowance, others: Collection[Allowance]) -> bool:
    tier, network, asked = choice[0], choice[1], Limits.recorded(choice[2])
    return not own.allows(tier, network, asked) and any(other.allows(tier, network, asked) for other in others)
