"""What a machine lets executions choose of how they are kept apart from it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from services.sandbox.spec import Network, Tier


@dataclass(frozen=True, slots=True)
class Allowance:
    """Tiers and networks that may be chosen. Network NONE always may: checks and hooks have no other."""

    tiers: frozenset[Tier]
    networks: frozenset[Network]

    @classmethod
    def of(cls, tiers: Collection[Tier], networks: Collection[Network]) -> "Allowance":
        """Make an allowance, with network NONE."""
        return cls(frozenset(tiers), frozenset({Network.NONE, *networks}))

    def allows(self, tier: Tier, network: Network) -> bool:
        """Return True when both may be chosen."""
        return tier in self.tiers and network in self.networks


DEFAULT_TIERS: Final = (Tier.BUBBLEWRAP, Tier.CONTAINER)
DEFAULT_NETWORKS: Final = (Network.NONE, Network.ALLOW_LIST)
DEFAULT_ALLOWANCE: Final = Allowance.of(DEFAULT_TIERS, DEFAULT_NETWORKS)

TIERS_SETTING: Final = "BOATYARD_EXECUTION_ALLOWED_TIERS"
NETWORKS_SETTING: Final = "BOATYARD_EXECUTION_ALLOWED_NETWORKS"
