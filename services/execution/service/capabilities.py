"""Finds out, once at the start, what this machine lets the service do for executions; `boatyard doctor` shows it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from services.agent.images import IMAGE_SETTING
from services.execution.cgroups.group import ControlGroupHierarchies, Controller
from services.execution.egress.probe import probe as probe_network
from services.execution.settings import ExecutionSettings
from services.sandbox import container_engines, host_uids, seccomp, shared_uid
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.probe import probe, probe_as

# What our proxy carries: see `services.execution.egress.capture`.
_CARRIED = (
    "TCP to IPv4 addresses and to names; no UDP, no ping, no IPv6 addresses, and of names no records but addresses"
)
_SAMPLED = "use is measured a few times a second, and what comes and goes in between is not seen"
_SAMPLED_MEMORY = f"{_SAMPLED}, nor is memory that no process maps, such as anonymous files and buffers"

NO_DOOR_IN_CONTAINERS = (
    "agents reach no models from containers: their engine runs as root, and this service does not, so it cannot listen"
    " in them; run it as root, or use rootless podman or tier bubblewrap"
)
_UID = "uid"
CONTAINER = "container"
"""The name of the capability to make containers."""


@dataclass(frozen=True, slots=True)
class Capability:
    """Something done for executions: what provides it (empty: nothing does), and what does not work about it."""

    name: str
    provided_by: str
    complaint: str = ""


def capabilities(control_groups: ControlGroupHierarchies, settings: ExecutionSettings) -> Iterator[Capability]:
    """Find out what works. Starts sandboxes, which blocks for some 60 ms, and a container if there is an image."""
    try:
        probe()
        yield Capability("sandbox", "bubblewrap")
    except SandboxUnavailableError as error:
        yield Capability("sandbox", "", f"{error.problem}: {error.mend}")
    yield _uid()
    yield _network()
    yield _door(settings.container_engine)
    yield container(settings)
    if missing := settings.missing_paths():
        yield Capability("read-only paths", "", missing)
    if seccomp.program() is None:
        yield Capability("system calls", "", "we have no filter for this kernel or processor")
    else:
        yield Capability("system calls", "seccomp")
    for controller in Controller:
        hierarchy = control_groups.get(controller)
        if hierarchy is None:
            yield Capability(controller, "sampling", _SAMPLED_MEMORY if controller is Controller.MEMORY else _SAMPLED)
        else:
            yield Capability(controller, f"control groups {hierarchy.version}")


def _uid() -> Capability:
    """Find out which uid agents have on the host. Blocks for some 20 ms."""
    why = host_uids.NOT_ROOT
    if os.geteuid() == 0:
        try:
            probe_as(host_uids.ALL[-1])
            return Capability(_UID, "workspaces")
        except SandboxUnavailableError as error:
            why = f"{error.problem}: {error.mend}"
    weakness = shared_uid.weakness()
    return Capability(_UID, "bounds" if weakness is None else "", f"agents have the service's uid: {weakness or why}")


def _network() -> Capability:
    """Find out whether programs that know no proxy get out of a sandbox."""
    if complaint := probe_network():
        return Capability(
            "network", "", f"no network open, and allow lists only for programs that know a proxy: {complaint}"
        )
    return Capability("network", "nf_tables", _CARRIED)


def _door(only: str | None) -> Capability:
    """Find out where agents can reach models. Blocks for 0.1 s where there is a container engine."""
    try:
        complaint = "" if container_engines.find(only).can_be_entered else NO_DOOR_IN_CONTAINERS
    except SandboxUnavailableError:
        complaint = ""
    return Capability("door", "network namespaces", complaint)


def container(settings: ExecutionSettings) -> Capability:
    """Find out which container engine there is, which images it lacks, and whether it starts one of the default image.

    An image that may be fetched is not missing, and of patterns nobody knows which they mean. Blocks for 0.1 s where
    there is an engine, some more for each image, and for a second where it starts a container.
    """
    default = settings.container_image
    named = [image for image in (default, *settings.container_images) if image and not set("*?[") & set(image)]
    try:
        engine = container_engines.find(settings.container_engine)
        missing = [image for image in named if not container_engines.has_image(engine, image)]
        if default not in {"", *missing}:
            container_engines.run_nothing(engine, default)
    except SandboxUnavailableError as error:
        return Capability(CONTAINER, "", f"{error.problem}: {error.mend}")
    complaints = engine.weaknesses
    if settings.container_pull == "never":
        complaints += [str(container_engines.missing_image(engine, image)) for image in missing]
    if default in {"", *missing}:
        complaints.append(f"no container was tried, for want of an image ({IMAGE_SETTING})")
    return Capability(CONTAINER, engine.name, "; ".join(complaints))
