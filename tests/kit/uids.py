"""The uids of agents, on machines where they can have their own, and that of another user of the machine."""

import functools
import os
from pathlib import Path
from typing import Any, Final

from services.sandbox import host_uids
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.probe import probe_as

SOMEBODY = 54321
AS_SOMEBODY: Final[dict[str, Any]] = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": [], "env": {}}
"""What starts a program as another user of the machine."""

_OURS = host_uids.ALL[-64:]


@functools.cache
def have_their_own() -> bool:
    """True when agents can have uids of their own here."""
    try:
        if os.geteuid() == 0:
            probe_as(_OURS[0])
            return True
    except SandboxUnavailableError:
        pass
    return False


def give_to_agents(directory: Path, number: int = 0) -> int | None:
    """Have agents in this directory have a uid of their own, if they can here; return it."""
    if not have_their_own():
        return None
    os.chown(directory, _OURS[number], _OURS[number])
    return _OURS[number]
