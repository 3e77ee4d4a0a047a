"""A run's control group: it limits, counts and ends all its processes, whatever those call themselves.

One run may have a directory in several hierarchies: version 2 has all controllers in one, version 1 has one for each,
and many machines have some of both. `ControlGroupHierarchy` says for one controller where groups can be made;
`ControlGroup` is what was made there. The service finds out which hierarchies there are (`cgroups.hierarchies`), and
passes them to its runners.
"""

import contextlib
import enum
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.execution.model import Vitals

HIERARCHIES_VARIABLE = "BOATYARD_CGROUP_PLACES"
"""The environment variable in which the service tells its runners where they can make groups."""

OWN_PROCESSES = 3
"""How many of our processes a group holds: bubblewrap, the namespace's init, and for a moment the runner."""

_RELEASED_WITHIN_S = 0.2
_NANOSECONDS = 1e9
_MICROSECONDS = 1e6


class Controller(enum.StrEnum):
    """What can be limited or counted for a run."""

    MEMORY = "memory"
    PROCESSES = "processes"
    CPU = "cpu"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class ControlGroupHierarchy:
    """Where groups can be made: version 1 or 2, their parent, and the group that runners themselves belong to."""

    version: int
    parent: Path
    home: Path


ControlGroupHierarchies = Mapping[Controller, ControlGroupHierarchy]


@dataclass(frozen=True, slots=True)
class ControlGroupUsage:
    """What a group counts, with how many processes were `refused`, or `killed` by the kernel for lack of memory."""

    vitals: Vitals
    refused: int = 0
    killed: int = 0


def to_text(hierarchies: ControlGroupHierarchies) -> str:
    """Serialize hierarchies for `from_text`."""
    return json.dumps(
        {
            controller: [hierarchy.version, str(hierarchy.parent), str(hierarchy.home)]
            for controller, hierarchy in hierarchies.items()
        }
    )


def from_text(text: str) -> dict[Controller, ControlGroupHierarchy]:
    """Read what `to_text` wrote."""
    return {
        Controller(controller): ControlGroupHierarchy(version, Path(parent), Path(home))
        for controller, (version, parent, home) in json.loads(text).items()
    }


def join_new() -> "ControlGroup | None":
    """Make a group where our environment says, and join it; return None when it says nothing, or that fails."""
    hierarchies = from_text(os.environ.get(HIERARCHIES_VARIABLE, "{}"))
    if not hierarchies:
        return None
    try:
        group = ControlGroup.make(hierarchies, f"{os.getpid()}-{time.time_ns()}")
        group.enter()
    except OSError as error:  # removed by somebody since the service looked; without it we measure with /proc
        print(f"no control group: {error}", file=sys.stderr)  # noqa: T201 - a runner has no other log
        return None
    return group


class ControlGroup:
    """The processes of one run."""

    def __init__(self, directories: Mapping[Controller, Path], homes: Mapping[Path, Path]) -> None:
        """`directories` exist; `homes` are the groups that a runner returns to, by the directory that it leaves."""
        self.directories = dict(directories)
        self._homes = dict(homes)
        self._inside = False
        self._max_processes = "max"
        self._refused: int | None = None

    @classmethod
    def make(cls, hierarchies: ControlGroupHierarchies, name: str) -> Self:
        """Make a new group. Raises OSError."""
        directories = {controller: hierarchy.parent / name for controller, hierarchy in hierarchies.items()}
        for directory in dict.fromkeys(directories.values()):
            directory.mkdir(exist_ok=True)
        return cls(
            directories, {directories[controller]: hierarchy.home for controller, hierarchy in hierarchies.items()}
        )

    @classmethod
    def of_lost_runner(cls, directories: Mapping[str, str]) -> Self:
        """Return the group of a lost runner, from the directories that it had recorded."""
        existing = {
            Controller(controller): Path(path) for controller, path in directories.items() if Path(path).is_dir()
        }
        return cls(existing, {})

    def limit(self, memory_bytes: int | None, processes: int | None) -> None:
        """Limit what all processes may use together; None sets no limit. Raises OSError."""
        if memory_bytes is not None and (directory := self.directories.get(Controller.MEMORY)):
            if (directory / "memory.max").exists():
                (directory / "memory.max").write_text(str(memory_bytes))
                _write_if_exists(directory / "memory.swap.max", "0")
            else:
                (directory / "memory.limit_in_bytes").write_text(str(memory_bytes))
                _write_if_exists(directory / "memory.memsw.limit_in_bytes", str(memory_bytes))
        if processes is not None:
            self._max_processes = str(processes + OWN_PROCESSES)

    def enter(self) -> None:
        """Put this process, and all that it will start, into the group. This may take 10 ms. Raises OSError."""
        if directory := self.directories.get(Controller.PROCESSES):
            (directory / "pids.max").write_text(self._max_processes)
            self._refused = None
        if not self._inside:
            self._inside = True
            for directory in self._homes:
                (directory / "cgroup.procs").write_text("0")

    def leave(self) -> None:
        """Take this process out of the group, but none of those that it has started."""
        if self._inside:
            self._inside = False
            for home in self._homes.values():
                with contextlib.suppress(OSError):  # the home is gone; `end` spares this process anyway
                    (home / "cgroup.procs").write_text("0")

    def read(self) -> ControlGroupUsage:
        """Read the counters; those that nothing counts on this machine are 0, or None."""
        memory, peak, killed = self._memory()
        processes, refused = self._processes()
        if self._refused is not None:
            refused = self._refused  # later ones were refused by `end`
        read, written = self._disk()
        return ControlGroupUsage(Vitals(self._cpu_seconds(), memory, peak, processes, read, written), refused, killed)

    def has(self, controller: Controller) -> bool:
        """Return whether the group has this controller."""
        return controller in self.directories

    def end(self, timeout_s: float) -> int:
        """Kill all processes in the group, also those started meanwhile; return how many are left after `timeout_s`."""
        self.leave()
        if directory := self.directories.get(Controller.PROCESSES):
            self._refused = self._processes()[1]
            _write_if_exists(directory / "pids.max", "0")  # so that nothing can fork faster than we kill
        deadline = time.monotonic() + timeout_s
        while remaining := self.pids():
            if time.monotonic() > deadline:
                return len(remaining)
            for pid in remaining:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # our children stay in the group until we wait for them
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            time.sleep(0.001)
        return 0

    def pids(self) -> set[int]:
        """Return the processes in the group, without this one."""
        pids: set[int] = set()
        for directory in self.directories.values():
            with contextlib.suppress(OSError):
                pids.update(map(int, (directory / "cgroup.procs").read_text().split()))
        return pids - {0, os.getpid()}

    def remove(self) -> None:
        """Remove the group if it is empty; otherwise it stays."""
        deadline = time.monotonic() + _RELEASED_WITHIN_S
        for directory in dict.fromkeys(self.directories.values()):
            while True:
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError:  # the last process has ended, but the kernel is still cleaning up
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.001)
                else:
                    break

    def _memory(self) -> tuple[int, int, int]:
        directory = self.directories.get(Controller.MEMORY)
        if directory is None:
            return 0, 0, 0
        if (directory / "memory.current").exists():
            now = _number(directory / "memory.current")
            return now, max(now, _number(directory / "memory.peak")), _entry(directory / "memory.events", "oom_kill")
        now, peak = (_number(directory / f"memory.{name}_in_bytes") for name in ("usage", "max_usage"))
        return now, peak, _entry(directory / "memory.oom_control", "oom_kill")

    def _processes(self) -> tuple[int, int]:
        directory = self.directories.get(Controller.PROCESSES)
        if directory is None:
            return len(self.pids()), 0
        return _number(directory / "pids.current"), _entry(directory / "pids.events", "max")

    def _cpu_seconds(self) -> float:
        directory = self.directories.get(Controller.CPU)
        if directory is None:
            return 0.0
        if (directory / "cpuacct.usage").exists():
            return _number(directory / "cpuacct.usage") / _NANOSECONDS
        return _entry(directory / "cpu.stat", "usage_usec") / _MICROSECONDS

    def _disk(self) -> tuple[int | None, int | None]:
        directory = self.directories.get(Controller.DISK)
        if directory is None:
            return None, None
        read = written = 0
        for line in _text(directory / "blkio.throttle.io_service_bytes").splitlines():  # 8:0 Read 4096
            words = line.split()
            read += int(words[-1]) if "Read" in words else 0
            written += int(words[-1]) if "Write" in words else 0
        for line in _text(directory / "io.stat").splitlines():  # 8:0 rbytes=4096 wbytes=0 …
            counts = dict(word.partition("=")[::2] for word in line.split()[1:])
            read += int(counts.get("rbytes", 0))
            written += int(counts.get("wbytes", 0))
        return read, written


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int:
    return int(_text(path) or 0)


def _entry(path: Path, key: str) -> int:
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _write_if_exists(path: Path, value: str) -> None:
    with contextlib.suppress(OSError):  # not every kernel has it, and its effect is also ensured otherwise
        if path.exists():
            path.write_text(value)
