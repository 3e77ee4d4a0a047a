"""Where this machine lets us make control groups, found out by making some. Runners are told: see `runner.group`.

Groups are made below the group that the service is in itself, so that whatever bounds the service bounds its agents
too; with version 2, where a group with processes cannot pass controllers on, below its parent if that was delegated
to us (systemd: `Delegate=yes` with `DelegateSubgroup=`).
"""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.execution.cgroups.group import Place, Task

_V1 = {Task.MEMORY: "memory", Task.PROCESSES: "pids", Task.CPU: "cpuacct", Task.DISK: "blkio"}
_V2 = {Task.MEMORY: "memory", Task.PROCESSES: "pids", Task.DISK: "io"}
_JOIN = 'test -e "$1/cgroup.procs" && echo 0 >"$1/cgroup.procs"'
_TIMEOUT_S = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    version: int
    controllers: frozenset[str]
    own: Path
    root: Path


def find_places(name: str, proc: Path = Path("/proc/self")) -> dict[Task, Place]:
    """Find a place for each task that groups can do here; empty where they can do none. Blocks for some ms.

    `name` is ours alone on this machine. Version 2 is preferred. `proc` has `mountinfo` and `cgroup`.
    """
    places: dict[Task, Place] = {}
    for hierarchy in sorted(_hierarchies(proc), key=lambda one: -one.version):
        wanted = set(Task) - set(places)
        places |= _in_v2(hierarchy, name) if hierarchy.version == 2 else _in_v1(hierarchy, name, wanted)
    return places


def sweep(places: Mapping[Task, Place]) -> None:
    """Remove the groups of runners that are gone; those that have a process stay."""
    for place in places.values():
        with contextlib.suppress(OSError):
            for entry in place.parent.iterdir():
                if entry.is_dir():
                    with contextlib.suppress(OSError):
                        entry.rmdir()


def remove(places: Mapping[Task, Place]) -> None:
    """Remove the places themselves, unless runners still have groups there."""
    sweep(places)
    for place in places.values():
        with contextlib.suppress(OSError):
            place.parent.rmdir()


def _hierarchies(proc: Path) -> Iterator[_Hierarchy]:
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
        _, _, _, shown, mounted = before.split(" ")[:5]
        controllers = frozenset() if kind == "cgroup2" else frozenset(options.split(","))
        for names, path in own.items():
            if (kind == "cgroup2" and not names) or (names and set(names.split(",")) <= controllers):
                relative = path.removeprefix(shown.rstrip("/")).lstrip("/")
                yield _Hierarchy(1 + (kind == "cgroup2"), controllers, Path(mounted, relative), Path(mounted))


def _in_v1(hierarchy: _Hierarchy, name: str, wanted: set[Task]) -> dict[Task, Place]:
    place = Place(1, hierarchy.own / name, hierarchy.own)
    tasks = {task for task in wanted if _V1[task] in hierarchy.controllers}
    return dict.fromkeys(tasks, place) if tasks and _works(place, tasks) else {}


def _in_v2(hierarchy: _Hierarchy, name: str) -> dict[Task, Place]:
    parents = [hierarchy.own]
    if hierarchy.own.parent.is_relative_to(hierarchy.root) and hierarchy.own.parent != hierarchy.root:
        parents.append(hierarchy.own.parent)
    best: dict[Task, Place] = {}
    for parent in parents:
        place = Place(2, parent / name, hierarchy.own)
        tasks = {Task.CPU}  # counted in every group
        with contextlib.suppress(OSError):
            place.parent.mkdir(exist_ok=True)
            for task, controller in _V2.items():
                if _pass_on(parent, controller) and _pass_on(place.parent, controller):
                    tasks.add(task)
        if len(tasks) > len(best) and _works(place, tasks):
            best = dict.fromkeys(tasks, place)
        else:
            with contextlib.suppress(OSError):
                place.parent.rmdir()
    return best


def _pass_on(group: Path, controller: str) -> bool:
    """Give a controller to the groups below, if there is one and the kernel lets us."""
    switch = group / "cgroup.subtree_control"
    if controller in switch.read_text().split():
        return True
    with contextlib.suppress(OSError):
        switch.write_text(f"+{controller}")
        return True
    return False


def _works(place: Place, tasks: set[Task]) -> bool:
    """Make a group, limit it, and have a process join it; leave nothing behind where that fails."""
    group = place.parent / f"probe-{secrets.token_hex(4)}"
    problem = ""
    try:
        place.parent.mkdir(exist_ok=True)
        group.mkdir()
        joined = subprocess.run(
            ["/bin/sh", "-c", _JOIN, "sh", group], capture_output=True, check=False, timeout=_TIMEOUT_S
        )
        if joined.returncode != 0:
            problem = joined.stderr.decode().strip() or "what was made there is no control group"
        elif Task.MEMORY in tasks:
            (group / ("memory.max" if place.version == 2 else "memory.limit_in_bytes")).write_text("1073741824")
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    for made in (group, place.parent) if problem else (group,):
        with contextlib.suppress(OSError):
            made.rmdir()
    if problem:
        log.info("no control groups here", place=str(place.parent), problem=problem)
    return not problem
