"""Floors: what a project or a template wants of every job, whoever submits it. A job only adds to it.

Binding settings to a floor only ever tightens them, and to several gives the same in any order, but for that in
which their verify commands run.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Never

from services.agent.limits import Limits, above, bounded, limited, written
from services.agent.settings import AgentSettings
from services.lifecycle.model.budgets import AMOUNTS, UNLIMITED, BudgetLimits
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import Publish
from services.lifecycle.model.value import Recorded
from services.sandbox.host_patterns import HostPattern
from services.sandbox.spec import Network, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor(Recorded):
    """A floor, with the names of the contract, which explains each field. An empty field wants nothing."""

    verify_command: str = ""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    limits: Limits = field(default_factory=Limits)
    sandbox_tiers: tuple[Tier, ...] = ()
    networks: tuple[Network, ...] = ()
    never_pushed: bool = False
    protected_paths: tuple[str, ...] = ()
    approved_by_others: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_attempts: int | None = None
    max_extra_rounds: int | None = None
    budget: BudgetLimits = UNLIMITED


NO_FLOOR = Floor()
_TRIES: Final = ("max_attempts", "max_extra_rounds")
"""What a floor limits of a policy."""


@dataclass(frozen=True, slots=True)
class BindingFloor(Recorded):
    """A floor that binds a job, and who set it, such as `project/default`."""

    set_by: str
    floor: Floor


def bound_agent(agent: AgentSettings, floor: Floor) -> AgentSettings:
    """Return the settings within a floor's limits. Tiers, networks and hosts are for `complaints`."""
    return bounded(agent, floor.limits)


def bound_policy(policy: Policy[Never], floor: Floor) -> Policy[Never]:
    """Return the policy with what a floor asks for besides. Its verify command comes first, each time."""
    asked = {*policy.checkpoints.before, *floor.checkpoints.before}
    return replace(
        policy,
        verify_command=_both(floor.verify_command, policy.verify_command),
        checkpoints=Checkpoints(tuple(stage for stage in APPROVAL_STAGES if stage in asked)),
        publish=Publish.NONE if floor.never_pushed else policy.publish,
        budget=_smaller(policy.budget, floor.budget),
        **{name: min(most, value) for name, value, most in limited(policy, floor, _TRIES)},
    )


def complaints(agent: AgentSettings, floor: Floor) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for what merged settings chose and a floor does not leave to choose from."""
    if floor.sandbox_tiers and agent.tier not in floor.sandbox_tiers:
        yield "sandbox_tier", f"must be {' or '.join(tier.upper() for tier in floor.sandbox_tiers)}"
    network = agent.network or Network.NONE
    if floor.networks and network not in {Network.NONE, *floor.networks}:
        names = dict.fromkeys([Network.NONE, *floor.networks])
        yield "network", f"must be {' or '.join(name.upper() for name in names)}"
    if floor.allowed_hosts:
        yield from _host_complaints(network, agent.allowed_hosts, floor.allowed_hosts)


def exceeded(asked: AgentSettings, floor: Floor) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for each limit that one layer of settings sets itself, and higher than a floor allows."""
    yield from _most(above(asked, floor.limits))


def undercut(asked: Policy[None], floor: Floor) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for what one layer of a policy sets itself, and a floor wants more of."""
    if asked.checkpoints is not None:
        omitted = [stage for stage in floor.checkpoints.before if stage not in asked.checkpoints.before]
        if omitted:
            yield "checkpoints.before", f"must have {', '.join(omitted)}"
    if floor.never_pushed and asked.publish is Publish.PUSH:
        yield "publish", "must be NONE"
    yield from _most(above(asked, floor, _TRIES))
    if asked.budget is not None:
        beyond = _most(above(asked.budget, floor.budget, AMOUNTS))
        yield from ((f"budget.{name}", rule) for name, rule in beyond)


def protected_paths(floors: Iterable[BindingFloor]) -> tuple[str, ...]:
    """Return the patterns of all floors, each once."""
    return tuple(dict.fromkeys(pattern for each in floors for pattern in each.floor.protected_paths))


def check_in_words(verify_command: str, floors: Iterable[BindingFloor]) -> str:
    """Name the check of a job for people: whose it is, where a floor has a part in it."""
    having = [each for each in floors if each.floor.verify_command]
    names = " and ".join(each.set_by for each in having)
    match having:
        case []:
            return "the check"
        case [one]:
            is_whole = one.floor.verify_command == verify_command
            return (
                f"the check of the floor of {names}" if is_whole else f"the check, with that of the floor of {names},"
            )
        case _:
            return f"the check, with those of the floors of {names},"


def joined(floors: Sequence[BindingFloor], more: Iterable[BindingFloor]) -> tuple[BindingFloor, ...]:
    """Return the floors with those that are not among them yet."""
    return (*floors, *(each for each in more if each not in floors))


def _smaller(budget: BudgetLimits, floor: BudgetLimits) -> BudgetLimits:
    """Return a budget within a floor's. Costs that nobody knows count only where both limit dollars and allow them."""
    allowed = [each.allow_unknown_cost for each in (budget, floor) if each.cost_usd is not None]
    pairs = {name: (getattr(budget, name), getattr(floor, name)) for name in AMOUNTS}
    least = {name: min(filter(None, pair), default=None) for name, pair in pairs.items()}
    return BudgetLimits(**least, allow_unknown_cost=bool(allowed) and all(allowed))


def _most(exceeded: Iterable[tuple[str, Any, Any]]) -> Iterator[tuple[str, str]]:
    return ((name, f"must be at most {written(most)}") for name, _, most in exceeded)


def _host_complaints(network: Network, asked: Sequence[str], allowed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for what a network reaches beyond the hosts of a floor."""
    if network is Network.OPEN:
        yield "network", "must be NONE or ALLOW_LIST"
    if network is not Network.ALLOW_LIST:
        return
    patterns = [HostPattern.parse(host) for host in allowed]
    beyond = [host for host in asked if not any(each.covers(HostPattern.parse(host)) for each in patterns)]
    if beyond or not asked:
        yield "allowed_hosts", f"must be of {', '.join(allowed)}, not {', '.join(beyond) or 'left open'}"


def _both(first: str, second: str) -> str:
    """Return a line for /bin/sh that runs two, each by a shell of its own: neither's text can change the other."""
    if not (first and second):
        return first or second
    return " && ".join(f"/bin/sh -c {shlex.quote(line)}" for line in (first, second))
