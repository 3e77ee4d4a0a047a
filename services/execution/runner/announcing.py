"""What the events say of a run's sandbox at its start: all by which it is weaker than people expect, or other."""

from services.execution.eventlog import EventWriter
from services.sandbox import device_nodes, seccomp
from services.sandbox.spec import SandboxSpec, Tier


def announce(writer: EventWriter, spec: SandboxSpec) -> None:
    """Append a note for each weakness."""
    if spec.tier is Tier.NONE:
        writer.note("NO SANDBOX: what runs here has every right that the service has, on the whole machine")
        return
    if spec.container is not None:
        writer.note(f"in a container of image {spec.container.image}")
        return
    for weakness in (seccomp.weakness(), device_nodes.weakness()):
        if weakness is not None:
            writer.note(weakness)
