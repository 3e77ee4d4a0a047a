"""What this machine lets the service do for executions, for `boatyard doctor`: found out once, at the start."""

from collections.abc import Iterator
from dataclasses import dataclass

from services.execution.runner.group import Places, Task
from services.sandbox import container_engines, seccomp
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.probe import probe

_SAMPLED = "what it takes is looked at a few times a second, and what comes and goes in between is not seen"


CONTAINER = "container"
"""Name of what makes containers."""


@dataclass(frozen=True, slots=True)
class Capability:
    """Something done for executions, by what (empty: by nothing), and what does not work of it."""

    name: str
    provided_by: str
    complaint: str = ""


def capabilities(control_groups: Places, container_engine: str | None) -> Iterator[Capability]:
    """Tell what works; starts a sandbox, which blocks for some 10 ms, and asks container engines, if there are any."""
    try:
        probe()
        yield Capability("sandbox", "bubblewrap")
    except SandboxUnavailableError as error:
        yield Capability("sandbox", "", f"{error.problem}: {error.mend}")
    yield container(container_engine)
    if seccomp.program() is None:
        yield Capability("system calls", "", "this kernel or processor has no filter of ours")
    else:
        yield Capability("system calls", "seccomp")
    for task in Task:
        place = control_groups.get(task)
        if place is None:
            yield Capability(task, "sampling", _SAMPLED)
        else:
            yield Capability(task, f"control groups {place.version}")


def container(only: str | None) -> Capability:
    """Tell which container engine there is; blocks for 0.1 s where there is one."""
    try:
        engine = container_engines.find(only)
    except SandboxUnavailableError as error:
        return Capability(CONTAINER, "", f"{error.problem}: {error.mend}")
    return Capability(CONTAINER, engine.name, "; ".join(engine.weaknesses))
