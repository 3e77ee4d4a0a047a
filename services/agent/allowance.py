"""What a machine lets executions choose: how they are kept apart from it, and how much of it they may have."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from services.agent.limits import NO_LIMITS, Limits, above, covers
from services.sandbox.spec import Network, Tier


@dataclass(frozen=True, slots=True)
class Allowance:
    """Tiers and networks that may be chosen, and the most that may be asked for.

    Network NONE always may be chosen: checks and hooks have no other.
    """

    tiers: frozenset[Tier]
    networks: frozenset[Network]
    limits: Limits = NO_LIMITS

    @classmethod
    def of(cls, tiers: Collection[Tier], networks: Collection[Network], limits: Limits = NO_LIMITS) -> "Allowance":
        """Make an allowance, with network NONE."""
        return cls(frozenset(tiers), frozenset({Network.NONE, *networks}), limits)

    def allows(self, tier: Tier, network: Network, asked: Limits = NO_LIMITS) -> bool:
        """Return True when both may be chosen, and no more is asked for than may be."""
        return tier in self.tiers and network in self.networks and not any(above(asked, self.limits))

    def covers(self, other: "Allowance") -> bool:
        """Return True when this allows all that another does."""
        return self.tiers >= other.tiers and self.networks >= other.networks and covers(self.limits, other.limits)


DEFAULT_TIERS: Final = (Tier.BUBBLEWRAP, Tier.CONTAINER)
DEFAULT_NETWORKS: Final = (Network.NONE, Network.ALLOW_LIST)
DEFAULT_ALLOWANCE: Final = Allowance.of(DEFAULT_TIERS, DEFAULT_NETWORKS)

TIERS_SETTING: Final = "BOATYARD_EXECUTION_ALLOWED_TIERS"
NETWORKS_SETTING: Final = "BOATYARD_EXECUTION_ALLOWED_NETWORKS"
LIMITS_SETTING: Final = "BOATYARD_EXECUTION_LIMITS"
