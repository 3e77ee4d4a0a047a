"""How the runner finds an engine by its name.

A runner is started before it has a run. An engine that is quick to import is imported then, so that its agents start
at once; one that is slow to import is imported only when it has an agent to drive, so that no other run pays for it.
"""

from collections.abc import Callable, Mapping
from typing import Final

from services.execution.engines.command.run import run_command
from services.execution.engines.context import RunContext
from services.execution.model import Result

RunEngine = Callable[[RunContext], Result]
"""Drives an agent from its start, or from where a lost runner stopped, until no process of it is left."""


def load(name: str) -> RunEngine:
    """Return the function that drives the agents of an engine. Raises LookupError."""
    if name not in _ENGINES:
        raise LookupError(f"the plan is for engine {name!r}, which this version does not have: start the service again")
    return _ENGINES[name]()


def _anthropic() -> RunEngine:
    from services.execution.engines.anthropic.run import run_agent_loop  # noqa: PLC0415

    return run_agent_loop


_ENGINES: Final[Mapping[str, Callable[[], RunEngine]]] = {"command": lambda: run_command, "anthropic": _anthropic}
