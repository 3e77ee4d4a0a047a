"""Whether this machine can take one more execution, by what it really has at this moment."""

import os
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import Exhausted

_COME_BACK_S = 2.0
_BUSY_COME_BACK_S = 10.0
_V1_LIMIT, _V1_USED = "memory.limit_in_bytes", "memory.usage_in_bytes"
_V2_LIMIT, _V2_USED = "memory.max", "memory.current"


@dataclass(frozen=True, slots=True)
class Admission:
    """What must be left free. Bytes; `load` is the longest queue for each processor, as of the last minute."""

    runs: Path
    max_executions: int
    memory_reserve_bytes: int
    disk_reserve_bytes: int
    load: float | None
    memory_group: Path | None = None
    """The control group whose memory is all that we have, if there is one."""

    def check(self, active: int) -> None:
        """Refuse one more beside `active` others, if it must be. Blocks for some µs.

        Raises:
            Exhausted: TOO_MANY_EXECUTIONS or NODE_BUSY; it says when to come back.
        """
        if active >= self.max_executions:
            raise Exhausted(
                "TOO_MANY_EXECUTIONS",
                f"{active} executions are active here, and {self.max_executions} may be"
                " (BOATYARD_EXECUTION_MAX_EXECUTIONS)",
                retry_after=_COME_BACK_S,
                metadata={"active": str(active), "limit": str(self.max_executions)},
            )
        memory = available_memory(self.memory_group)
        if memory < self.memory_reserve_bytes:
            raise _busy("memory", memory, self.memory_reserve_bytes, "bytes of memory are free", "MEMORY_RESERVE_BYTES")
        found = os.statvfs(self.runs)
        disk = found.f_bavail * found.f_frsize
        if disk < self.disk_reserve_bytes:
            raise _busy("disk", disk, self.disk_reserve_bytes, f"bytes are free in {self.runs}", "DISK_RESERVE_BYTES")
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        if self.load is not None and load > self.load:
            raise _busy("load", round(load, 1), self.load, "processes wait for each processor", "MAX_LOAD")


def available_memory(group: Path | None, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that new programs can have: the machine's, or what a control group has left of its limit."""
    machine = 0
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            machine = int(line.split()[1]) * 1024
    if group is None:
        return machine
    for limit, used in ((_V2_LIMIT, _V2_USED), (_V1_LIMIT, _V1_USED)):
        try:
            most = int((group / limit).read_text())
        except (OSError, ValueError):  # another version, or `max`
            continue
        return min(machine, most - int((group / used).read_text()) + _reclaimable(group))
    return machine


def _reclaimable(group: Path) -> int:
    """Bytes of files that the kernel keeps only as long as nobody needs the room."""
    counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))


def _busy(what: str, have: float, need: float, text: str, setting: str) -> Exhausted:
    relation = "and at most" if what == "load" else "and at least"
    return Exhausted(
        "NODE_BUSY",
        f"this machine cannot take one more execution: {have} {text}, {relation} {need} must be"
        f" (BOATYARD_EXECUTION_{setting})",
        retry_after=_BUSY_COME_BACK_S,
        metadata={"resource": what, "available": str(have), "limit": str(need)},
    )
