"""The engines that drive agents, described by traits: only an engine's own package asks which engine it is.

A new engine needs a row here, a message in the contract, and a package in `services.execution.engines`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DEFAULT_ENGINE: Final = "command"
"""The engine of an agent for which no other is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTraits:
    """What the rest of Boatyard needs to know about an engine."""

    runs_command: bool
    """The agent is a command line from the job: its environment tells it what it needs to know besides the prompt, and
    the prompt may be one of its arguments. Any other engine is given model, system prompt and prompt itself."""
    needs_model: bool
    """The engine asks a model: one must be named, and the execution service must have credentials for it."""
    has_terminal: bool
    """The agent can be started on a terminal that people type on."""
    takes_messages: bool
    """The agent can receive messages while it works."""
    asks_permission: bool
    """The engine can ask a person for permission before a tool is called."""


ENGINES: Final[Mapping[str, EngineTraits]] = {
    "command": EngineTraits(
        runs_command=True, needs_model=False, has_terminal=True, takes_messages=False, asks_permission=False
    ),
    "anthropic": EngineTraits(
        runs_command=False, needs_model=True, has_terminal=False, takes_messages=True, asks_permission=True
    ),
}
"""All engines, in the order in which people see them listed."""


def traits(engine: str) -> EngineTraits:
    """Return the traits of an engine; those of the default engine when the name is unknown here."""
    return ENGINES.get(engine, ENGINES[DEFAULT_ENGINE])
