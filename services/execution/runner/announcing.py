"""What the events say of a run's sandbox at its start: all by which it is weaker than people expect."""

import os

from services.common.sandbox import seccomp
from services.common.sandbox.spec import SandboxSpec, Tier
from services.execution.eventlog import EventWriter


def announce(writer: EventWriter, spec: SandboxSpec) -> None:
    """Append a note for each weakness."""
    if spec.tier is Tier.NONE:
        writer.note("NO SANDBOX: what runs here has every right that the service has, on the whole machine")
    elif seccomp.program() is None:
        writer.note(
            f"no filter of system calls is known for this machine ({os.uname().machine}): the sandbox has its"
            " namespaces, and no capability, but all of the kernel's calls"
        )
