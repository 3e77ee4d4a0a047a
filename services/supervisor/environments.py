"""Which service is told which variable of the environment: what is secret goes to the one that needs it, no further.

A service that is broken into, or whose memory or /proc somebody reads, then gives away what is its own.
"""

from collections.abc import Mapping
from typing import Final

from services.supervisor.plan import COORDINATOR, EVERY_SERVICE, EXECUTION, GATEWAY

_OWNERS: Final[Mapping[str, tuple[str, ...]]] = {
    # The database holds tokens of remotes and keys of webhooks.
    "BOATYARD_DATABASE_URL": (GATEWAY,),
    # What users show; the node services take the cell's own token alone.
    "BOATYARD_TOKEN": (GATEWAY, COORDINATOR),
    "AGENT_COMMAND": (GATEWAY,),
    # A model's name is no secret: the gateway settles it for jobs that name none.
    "ANTHROPIC_MODEL": (GATEWAY, EXECUTION),
}
# The first that a name begins with; a service's own settings may hold secrets too.
_OWNERS_OF_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "ANTHROPIC_": (EXECUTION,),
    **{f"BOATYARD_{service.upper()}_": (service,) for service in EVERY_SERVICE},
}


def environment_of(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a service is told of an environment: what belongs to it, and what belongs to nobody, such as PATH."""
    return {name: value for name, value in environment.items() if service in _owners(name)}


def _owners(name: str) -> tuple[str, ...]:
    if name in _OWNERS:
        return _OWNERS[name]
    return next((owners for prefix, owners in _OWNERS_OF_PREFIXES.items() if name.startswith(prefix)), EVERY_SERVICE)
