"""Which agents that jobs name (presets) the cells have, and which of their jobs a cell leaves to others for it.

What a cell has not said is None: it may have any. An agent in a container comes with its image.
"""

from collections.abc import Collection, Mapping
from typing import Final

from pydantic import TypeAdapter

from services.agent.settings import AgentSettings, CommandEngine
from services.common.errors import FailedPrecondition
from services.sandbox.spec import Tier

Agents = Mapping[str, str]
"""Of each agent that a cell knows, why it cannot be started there; empty where it can: see Condition.agents."""

_AGENTS: Final = TypeAdapter(dict[str, str])


def preset_of(agent: AgentSettings) -> str:
    """Return the name of the agent that a job needs of its machine; empty when it needs none."""
    engine = agent.chosen_engine
    return (engine.preset or "") if isinstance(engine, CommandEngine) and agent.tier is not Tier.CONTAINER else ""


def agents_to_column(agents: Agents | None) -> str | None:
    """Write the agents of a cell; None while they are not known."""
    return None if agents is None else _AGENTS.dump_json(dict(sorted(agents.items())), ensure_ascii=True).decode()


def agents_of_column(text: str | None) -> Agents | None:
    """Read the agents of a cell."""
    return None if text is None else _AGENTS.validate_json(text)


def lack(agents: Agents | None, preset: str) -> str:
    """Return why a cell with these agents cannot start one; empty when it can, or that is not known."""
    if not preset or agents is None:
        return ""
    return agents.get(preset, f"it has no agent {preset!r}; it has {', '.join(agents) or 'none'}")


def left_to_others(own: Agents | None, others: Collection[Agents | None]) -> list[str]:
    """Return the names of the agents that a cell lacks, and others have."""
    if own is None or not others:
        return []
    names = own.keys() | {name for agents in others for name in agents or ()}
    return sorted(name for name in names if lack(own, name) and not all(lack(agents, name) for agents in others))


def check_installed(agent: AgentSettings, of_cells: Collection[Agents | None]) -> None:
    """Check that a cell has the agent that a job names. Raises FailedPrecondition (AGENT_NOT_INSTALLED)."""
    preset = preset_of(agent)
    lacks = [lack(agents, preset) for agents in of_cells]
    if not lacks or not all(lacks):
        return
    known = next((agents[preset] for agents in of_cells if agents is not None and preset in agents), lacks[0])
    raise FailedPrecondition(
        "AGENT_NOT_INSTALLED", f"no cell can start the agent {preset}: {known}", "agent.command.preset"
    )
