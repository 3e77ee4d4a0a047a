"""Decides whether this machine can take one more execution, by what it really has at this moment."""

import os
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import Exhausted, FailedPrecondition, ServiceError
from services.common.room import DISK, DISK_FULL, INODES, RESOURCE, tells_of_no_room

LEAST_INODES = 200
"""How many files and directories must be possible for one more execution, where a file system has a number of them."""

_RETRY_AFTER_S = 2.0
_BUSY_RETRY_AFTER_S = 10.0
_V1_LIMIT_FILE, _V1_USED_FILE = "memory.limit_in_bytes", "memory.usage_in_bytes"
_V2_LIMIT_FILE, _V2_USED_FILE = "memory.max", "memory.current"


@dataclass(frozen=True, slots=True)
class Admission:
    """How much must stay free, in bytes; `load` is how many processes may wait per processor, as of the last minute."""

    runs: Path
    max_executions: int
    memory_reserve_bytes: int
    disk_reserve_bytes: int
    load: float | None
    memory_group: Path | None = None
    """The control group whose memory is all that we have; None when there is none."""

    def check(self, active: int) -> None:
        """Refuse one more execution beside `active` others if there is no room for it. Blocks for some µs.

        Raises:
            Exhausted: TOO_MANY_EXECUTIONS or NODE_BUSY; it says when to try again.
        """
        if active >= self.max_executions:
            raise Exhausted(
                "TOO_MANY_EXECUTIONS",
                f"{active} executions are active here, and at most {self.max_executions} may be"
                " (BOATYARD_EXECUTION_MAX_EXECUTIONS)",
                retry_after=_RETRY_AFTER_S,
                metadata={"active": str(active), "limit": str(self.max_executions)},
            )
        memory = available_memory(self.memory_group)
        if memory < self.memory_reserve_bytes:
            raise _busy("memory", memory, self.memory_reserve_bytes, "bytes of memory are free", "MEMORY_RESERVE_BYTES")
        filesystem = os.statvfs(self.runs)
        disk = filesystem.f_bavail * filesystem.f_frsize
        if disk < self.disk_reserve_bytes:
            raise _busy(DISK, disk, self.disk_reserve_bytes, f"bytes are free in {self.runs}", "DISK_RESERVE_BYTES")
        if filesystem.f_files > 0 and filesystem.f_favail < LEAST_INODES:
            raise _no_inodes(filesystem.f_favail, self.runs)
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        if self.load is not None and load > self.load:
            raise _busy("load", round(load, 1), self.load, "processes wait for each processor", "MAX_LOAD")


def without_sandbox(why: str, subject: str) -> ServiceError:
    """Return the refusal of one more execution whose sandbox cannot be made: for lack of room, it is for a while."""
    if tells_of_no_room(why):
        return Exhausted(DISK_FULL, why, retry_after=_BUSY_RETRY_AFTER_S, metadata={RESOURCE: DISK})
    return FailedPrecondition("SANDBOX_UNAVAILABLE", why, subject)


def available_memory(group: Path | None, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the bytes that new programs can have: the machine's, or what is left of a control group's limit."""
    machine = 0
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            machine = int(line.split()[1]) * 1024
    if group is None:
        return machine
    for limit_file, used_file in ((_V2_LIMIT_FILE, _V2_USED_FILE), (_V1_LIMIT_FILE, _V1_USED_FILE)):
        try:
            limit = int((group / limit_file).read_text())
        except (OSError, ValueError):  # another version of control groups, or no limit (`max`)
            continue
        return min(machine, limit - int((group / used_file).read_text()) + _reclaimable(group))
    return machine


def _reclaimable(group: Path) -> int:
    """Return the bytes of cached files that the kernel gives up as soon as a program needs the memory."""
    counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))


def _no_inodes(have: int, runs: Path) -> Exhausted:
    return Exhausted(
        "NODE_BUSY",
        f"this machine cannot take one more execution: {have} inodes are free in {runs}, and at least {LEAST_INODES}"
        " must be; delete files there, many small ones above all",
        retry_after=_BUSY_RETRY_AFTER_S,
        metadata={RESOURCE: INODES, "available": str(have), "limit": str(LEAST_INODES)},
    )


def _busy(what: str, have: float, need: float, text: str, setting: str) -> Exhausted:
    condition = f"at most {need} may" if what == "load" else f"at least {need} must be"
    return Exhausted(
        "NODE_BUSY",
        f"this machine cannot take one more execution: {have} {text}, and {condition} (BOATYARD_EXECUTION_{setting})",
        retry_after=_BUSY_RETRY_AFTER_S,
        metadata={RESOURCE: what, "available": str(have), "limit": str(need)},
    )
