"""Whether a job may be kept apart from the machine as little as it asks: by its submitter, and by any cell."""

from sqlalchemy.ext.asyncio import AsyncConnection

from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition, PermissionDenied
from services.gateway.ledger.fleet import ANYTHING, members
from services.gateway.values.principal import Role, current_principal
from services.sandbox.allowance import NETWORKS_SETTING, TIERS_SETTING
from services.sandbox.spec import Network, Tier


async def check_isolation(connection: AsyncConnection, agent: AgentSettings) -> None:
    """Check the merged settings of a job that is to be done.

    Raises PermissionDenied (ROLE_REQUIRED) for tier NONE unless the caller administers all projects, and
    FailedPrecondition (TIER_NOT_ALLOWED, NETWORK_NOT_ALLOWED) for what no cell lets jobs choose.
    """
    tier, network = agent.tier, agent.network or Network.NONE
    caller = current_principal()
    if tier is Tier.NONE and not (caller.role is Role.ADMIN and caller.projects is None):
        text = (
            "only an administrator of all projects may have a job with sandbox tier NONE, which has all rights of the"
            " account that runs the cell"
        )
        raise PermissionDenied(text, reason="ROLE_REQUIRED")
    fleet = [cell.allowance or ANYTHING for cell in await members(connection)]
    if not fleet or any(allowance.allows(tier, network) for allowance in fleet):
        return
    if not any(tier in allowance.tiers for allowance in fleet):
        text = f"no cell lets jobs choose the sandbox tier {tier}: {_allowed_by(TIERS_SETTING)}"
        raise FailedPrecondition("TIER_NOT_ALLOWED", text, "agent.sandbox_tier")
    text = f"no cell lets jobs choose the network {network} with sandbox tier {tier}: {_allowed_by(NETWORKS_SETTING)}"
    raise FailedPrecondition("NETWORK_NOT_ALLOWED", text, "agent.network")


def _allowed_by(setting: str) -> str:
    return f"whoever runs a cell can allow it there by {setting}"
