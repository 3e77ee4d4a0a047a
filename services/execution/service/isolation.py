"""Decides whether an execution may be kept apart from this machine as little as it asks, and have as much of it."""

from collections.abc import Collection

from services.agent.allowance import LIMITS_SETTING, NETWORKS_SETTING, TIERS_SETTING, Allowance
from services.agent.limits import above, written
from services.common.errors import FailedPrecondition
from services.execution.model import StartRequest
from services.execution.service.store import ExecutionStore


class Isolation:
    """What the settings allow, and what jobs have begun with: a job ends as it began, whatever the settings are now."""

    def __init__(self, allowance: Allowance, store: ExecutionStore) -> None:
        self.allowance = allowance
        self._store = store

    async def check(self, request: StartRequest) -> None:
        """Raise FailedPrecondition (TIER_NOT_ALLOWED, NETWORK_NOT_ALLOWED, LIMIT_NOT_ALLOWED) for what may not be."""
        tier, network, allowed = request.plan.sandbox.tier, request.plan.sandbox.network, self.allowance
        if allowed.allows(tier, network, request.asked):
            return
        begun = await self._store.begun(request.job_id)
        if tier not in allowed.tiers | begun.tiers:
            text = f"the sandbox tier {tier} {_allows(TIERS_SETTING, allowed.tiers)}"
            raise FailedPrecondition("TIER_NOT_ALLOWED", text, request.execution_id)
        if network not in allowed.networks | begun.networks:
            text = f"the network {network} {_allows(NETWORKS_SETTING, allowed.networks)}"
            raise FailedPrecondition("NETWORK_NOT_ALLOWED", text, request.execution_id)
        beyond = list(above(request.asked, allowed.limits))
        if beyond and not begun.has_agent:
            text = " or ".join(f"a {name} of more than {written(most)}" for name, _, most in beyond)
            text = f"{text} may not be asked for on this machine: {LIMITS_SETTING} is {allowed.limits}"
            raise FailedPrecondition("LIMIT_NOT_ALLOWED", text, request.execution_id)


def _allows(setting: str, allowed: Collection[str]) -> str:
    return f"may not be chosen on this machine: {setting} allows {', '.join(sorted(allowed))}"
