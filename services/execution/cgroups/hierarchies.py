"""Where this machine lets us make control groups, found out by making some, and passed on to runners (see `group`).

Groups are made below the service's own group, so that whatever limits the service also limits its agents. With version
2, where a group that has processes cannot pass controllers on, they are made below its parent if that was delegated to
us (systemd: `Delegate=yes` with `DelegateSubgroup=`).
"""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.execution.cgroups.group import ControlGroupHierarchies, ControlGroupHierarchy, Controller

_V1 = {Controller.MEMORY: "memory", Controller.PROCESSES: "pids", Controller.CPU: "cpuacct", Controller.DISK: "blkio"}
_V2 = {Controller.MEMORY: "memory", Controller.PROCESSES: "pids", Controller.DISK: "io"}
_JOIN = 'test -e "$1/cgroup.procs" && echo 0 >"$1/cgroup.procs"'
_TIMEOUT_S = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Mounted:
    version: int
    controllers: frozenset[str]
    own: Path
    root: Path


def find_hierarchies(name: str, proc: Path = Path("/proc/self")) -> dict[Controller, ControlGroupHierarchy]:
    """Find a hierarchy for each controller; those without one are left out. Blocks for some ms.

    `name` must be unique on this machine. Version 2 is preferred. `proc` has `mountinfo` and `cgroup`.
    """
    hierarchies: dict[Controller, ControlGroupHierarchy] = {}
    for mounted in sorted(_mounted(proc), key=lambda mounted: -mounted.version):
        missing = set(Controller) - set(hierarchies)
        hierarchies |= _in_v2(mounted, name) if mounted.version == 2 else _in_v1(mounted, name, missing)
    return hierarchies


def remove_orphaned(hierarchies: ControlGroupHierarchies) -> None:
    """Remove the groups of runners that are gone; groups that still have processes stay."""
    for hierarchy in hierarchies.values():
        with contextlib.suppress(OSError):
            for entry in hierarchy.parent.iterdir():
                if entry.is_dir():
                    with contextlib.suppress(OSError):
                        entry.rmdir()


def remove(hierarchies: ControlGroupHierarchies) -> None:
    """Remove the parents of the groups too, unless runners still have groups in them."""
    remove_orphaned(hierarchies)
    for hierarchy in hierarchies.values():
        with contextlib.suppress(OSError):
            hierarchy.parent.rmdir()


def _mounted(proc: Path) -> Iterator[_Mounted]:
    try:
        mounts, memberships = (proc / "mountinfo").read_text(), (proc / "cgroup").read_text()
    except OSError:
        return
    own = {names: path for _, names, path in (line.split(":", 2) for line in memberships.splitlines())}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        _, _, _, root, mount_point = before.split(" ")[:5]
        controllers = frozenset() if kind == "cgroup2" else frozenset(options.split(","))
        for names, path in own.items():
            if (kind == "cgroup2" and not names) or (names and set(names.split(",")) <= controllers):
                relative = path.removeprefix(root.rstrip("/")).lstrip("/")
                yield _Mounted(1 + (kind == "cgroup2"), controllers, Path(mount_point, relative), Path(mount_point))


def _in_v1(mounted: _Mounted, name: str, missing: set[Controller]) -> dict[Controller, ControlGroupHierarchy]:
    hierarchy = ControlGroupHierarchy(1, mounted.own / name, mounted.own)
    controllers = {controller for controller in missing if _V1[controller] in mounted.controllers}
    return dict.fromkeys(controllers, hierarchy) if controllers and _works(hierarchy, controllers) else {}


def _in_v2(mounted: _Mounted, name: str) -> dict[Controller, ControlGroupHierarchy]:
    parents = [mounted.own]
    if mounted.own.parent.is_relative_to(mounted.root) and mounted.own.parent != mounted.root:
        parents.append(mounted.own.parent)
    best: dict[Controller, ControlGroupHierarchy] = {}
    for parent in parents:
        hierarchy = ControlGroupHierarchy(2, parent / name, mounted.own)
        controllers = {Controller.CPU}  # counted in every group
        with contextlib.suppress(OSError):
            hierarchy.parent.mkdir(exist_ok=True)
            for controller, switch in _V2.items():
                if _delegate(parent, switch) and _delegate(hierarchy.parent, switch):
                    controllers.add(controller)
        if len(controllers) > len(best) and _works(hierarchy, controllers):
            best = dict.fromkeys(controllers, hierarchy)
        else:
            with contextlib.suppress(OSError):
                hierarchy.parent.rmdir()
    return best


def _delegate(group: Path, controller: str) -> bool:
    """Enable a controller for the groups below `group`; return whether the kernel lets us."""
    switch = group / "cgroup.subtree_control"
    if controller in switch.read_text().split():
        return True
    with contextlib.suppress(OSError):
        switch.write_text(f"+{controller}")
        return True
    return False


def _works(hierarchy: ControlGroupHierarchy, controllers: set[Controller]) -> bool:
    """Return whether a group can be made, joined and limited. If not, nothing is left behind."""
    group = hierarchy.parent / f"probe-{secrets.token_hex(4)}"
    problem = ""
    try:
        hierarchy.parent.mkdir(exist_ok=True)
        group.mkdir()
        join = subprocess.run(
            ["/bin/sh", "-c", _JOIN, "sh", group], capture_output=True, check=False, timeout=_TIMEOUT_S
        )
        if join.returncode != 0:
            problem = join.stderr.decode().strip() or "what was made there is not a control group"
        elif Controller.MEMORY in controllers:
            (group / ("memory.max" if hierarchy.version == 2 else "memory.limit_in_bytes")).write_text("1073741824")
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    for directory in (group, hierarchy.parent) if problem else (group,):
        with contextlib.suppress(OSError):
            directory.rmdir()
    if problem:
        log.info("no control groups here", place=str(hierarchy.parent), problem=problem)
    return not problem
