"""What the cells let jobs choose, and which jobs a cell leaves to others.

What a cell's node has not said yet is None: it may allow anything. A coordinator that says nothing has the default.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.cells import cells
from services.gateway.values.cells import CellKind
from services.sandbox.allowance import DEFAULT_ALLOWANCE, Allowance
from services.sandbox.spec import Network, Tier

ANYTHING: Final = Allowance.of(tuple(Tier), tuple(Network))
"""What a cell may allow that has not said it."""

_MEMBERS: Final = select(cells.c.cell_id, cells.c.paused, cells.c.kind, cells.c.allowed_tiers, cells.c.allowed_networks)


@dataclass(frozen=True, slots=True)
class Member:
    """A cell, as far as it matters for which jobs it takes."""

    cell_id: str
    is_paused: bool
    allowance: Allowance | None


def allowance_of_columns(kind: str, tiers: str | None, networks: str | None) -> Allowance | None:
    """Read what a row of `cells` allows; None while that is not known."""
    if tiers is None or networks is None:
        return DEFAULT_ALLOWANCE if kind == CellKind.COORDINATOR else None
    known_tiers, known_networks = set(tiers.split(",")), set(networks.split(","))
    return Allowance.of(  # what only a later version knows is left out: nothing here could ask for it
        {tier for tier in Tier if tier in known_tiers}, {network for network in Network if network in known_networks}
    )


def allowance_to_columns(allowance: Allowance | None) -> dict[str, str | None]:
    """Write what a cell allows into columns of `cells`."""
    return {
        "allowed_tiers": None if allowance is None else ",".join(sorted(allowance.tiers)),
        "allowed_networks": None if allowance is None else ",".join(sorted(allowance.networks)),
    }


async def members(connection: AsyncConnection) -> list[Member]:
    """Return all cells that are not forgotten, those that are away among them."""
    return [
        Member(cell_id, bool(paused), allowance_of_columns(kind, tiers, networks))
        for cell_id, paused, kind, tiers, networks in (await connection.execute(_MEMBERS)).all()
    ]


def left_to_others(cell_id: str, fleet: Collection[Member]) -> tuple[tuple[Tier, Network], ...]:
    """Return what a cell leaves to other cells, because they allow it and this one does not.

    What nobody allows any more is left to nobody: whoever takes it ends it with the refusal of its node.
    """
    own = next((each.allowance for each in fleet if each.cell_id == cell_id), None) or DEFAULT_ALLOWANCE
    others = [each.allowance or ANYTHING for each in fleet if each.cell_id != cell_id]
    return tuple(
        (tier, network)
        for tier in Tier
        for network in Network
        if not own.allows(tier, network) and any(other.allows(tier, network) for other in others)
    )
