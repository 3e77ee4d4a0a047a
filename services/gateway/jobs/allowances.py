"""Whether a job may be kept apart from a machine as little, and have as much of it, as it asks."""

from collections.abc import Collection, Sequence

from services.agent.allowance import LIMITS_SETTING, NETWORKS_SETTING, TIERS_SETTING, Allowance
from services.agent.images import ContainerImages
from services.agent.limits import Limits, above, widest, written
from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition, PermissionDenied
from services.gateway.ledger.agents import check_installed
from services.gateway.ledger.fleet import ANYTHING, Member
from services.gateway.values.principal import Role, current_principal
from services.sandbox.spec import Network, Tier


def most_of_all(allowances: Collection[Allowance]) -> Limits:
    """Return the most of each that one of the cells lets jobs ask for."""
    return widest(allowance.limits for allowance in allowances)


def check_agent(agent: AgentSettings, fleet: Collection[Member], images: ContainerImages | None = None) -> None:
    """Check the merged settings of a job that is to be done, by what the cells allow and have, those away among them.

    `images` is what their containers may be made from, where that is known.
    Raises what check_allowed does, and FailedPrecondition (AGENT_NOT_INSTALLED, IMAGE_NOT_ALLOWED).
    """
    check_allowed(agent, allowances_of(fleet))
    check_installed(agent, [cell.agents for cell in fleet if cell.allows(agent)])
    if agent.tier is Tier.CONTAINER and images is not None and (complaint := images.complaint(agent.image or "")):
        raise FailedPrecondition("IMAGE_NOT_ALLOWED", f"the image {complaint}", "agent.image")


def allowances_of(fleet: Collection[Member]) -> Sequence[Allowance]:
    """Return what each cell allows."""
    return [cell.allowance or ANYTHING for cell in fleet]


def check_allowed(agent: AgentSettings, allowances: Collection[Allowance]) -> None:
    """Check the merged settings of a job that is to be done, by what cells allow.

    Raises PermissionDenied (ROLE_REQUIRED) for tier NONE unless the caller administers all projects, and
    FailedPrecondition (TIER_NOT_ALLOWED, NETWORK_NOT_ALLOWED, LIMIT_NOT_ALLOWED) for what no cell allows.
    """
    tier, network, asked = agent.tier, agent.network or Network.NONE, Limits.of(agent)
    caller = current_principal()
    if tier is Tier.NONE and not (caller.role is Role.ADMIN and caller.projects is None):
        text = (
            "only an administrator of all projects may have a job with sandbox tier NONE, which has all rights of the"
            " account that runs the cell"
        )
        raise PermissionDenied(text, reason="ROLE_REQUIRED")
    if not allowances or any(allowance.allows(tier, network, asked) for allowance in allowances):
        return
    if not any(tier in allowance.tiers for allowance in allowances):
        text = f"no cell lets jobs choose the sandbox tier {tier}: {_allowed_by(TIERS_SETTING)}"
        raise FailedPrecondition("TIER_NOT_ALLOWED", text, "agent.sandbox_tier")
    fitting = [allowance for allowance in allowances if allowance.allows(tier, network)]
    if not fitting:
        text = f"no cell lets jobs choose the network {network} with sandbox tier {tier}"
        raise FailedPrecondition("NETWORK_NOT_ALLOWED", f"{text}: {_allowed_by(NETWORKS_SETTING)}", "agent.network")
    raise _limit_not_allowed(asked, fitting)


def _limit_not_allowed(asked: Limits, fitting: Collection[Allowance]) -> FailedPrecondition:
    most = most_of_all(fitting)
    beyond = [(name, f"{name} of more than {written(limit)}") for name, _, limit in above(asked, most)]
    # Each of them may be allowed by some cell, and all of them together by none.
    field = f"agent.{beyond[0][0]}" if beyond else "agent"
    text = " or ".join(words for _, words in beyond) or f"all of {asked} in one place"
    return FailedPrecondition(
        "LIMIT_NOT_ALLOWED", f"no cell lets jobs ask for a {text}: {_allowed_by(LIMITS_SETTING)}", field
    )


def _allowed_by(setting: str) -> str:
    return f"whoever runs a cell can allow it there by {setting}"
