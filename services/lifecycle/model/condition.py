"""What a machine's node services say of themselves: what jobs may choose there, and what keeps it from running any."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.agent.allowance import Allowance
from services.agent.images import ContainerImages
from services.lifecycle.model.value import Recorded


@dataclass(frozen=True, slots=True)
class Trouble(Recorded):
    """Something that keeps a machine from running jobs: the reason to refuse one with, and how to fix it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a machine. `allowance` and `agents` are None while its execution service does not answer.

    `agents` has, by the names of the agents that the machine knows, why one cannot be started outside of an image and
    how to install it; empty where it is installed. `images` is what containers may be made from; None: it is not told.
    """

    allowance: Allowance | None
    troubles: tuple[Trouble, ...] = ()
    agents: Mapping[str, str] | None = None
    images: ContainerImages | None = None


STARTING = Trouble("STARTING", "its services have not said yet whether they can work")
"""The trouble of a machine whose node services have not been asked since its start."""
