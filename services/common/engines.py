"""The engines that drive agents, by what can be asked of them: nobody but an engine's own room asks which one it is.

A new engine is a row here, its message in the contract, and a room in `services.execution.engines`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DEFAULT_ENGINE: Final = "command"
"""The engine of an agent for which nobody has said another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTraits:
    """What the rest of us needs to know of an engine."""

    runs_command: bool
    """Its agent is a command line of the job's: it is told by its environment what it is to know beside its prompt,
    and may get the prompt as an argument. Any other is given model, system prompt and prompt by itself."""
    needs_model: bool
    """It asks a model: one must be named, and the execution service must have what reaches it."""
    has_terminal: bool
    """Its agent can be started on a terminal, and typed on."""
    takes_messages: bool
    """Its agent can be told something while it works."""
    asks_permission: bool
    """It can ask somebody before a tool is called."""


ENGINES: Final[Mapping[str, EngineTraits]] = {
    "command": EngineTraits(
        runs_command=True, needs_model=False, has_terminal=True, takes_messages=False, asks_permission=False
    ),
    "anthropic": EngineTraits(
        runs_command=False, needs_model=True, has_terminal=False, takes_messages=True, asks_permission=True
    ),
}
"""Those that there are, in the order in which people are told of them."""


def traits(engine: str) -> EngineTraits:
    """Return what can be asked of an engine; of one that is not known here, as of the default."""
    return ENGINES.get(engine, ENGINES[DEFAULT_ENGINE])
