"""Memory use of processes, in MB of 2^20 bytes, as the kernel counts it."""

import re
from collections.abc import Iterable
from pathlib import Path


def proportional_mb(pids: Iterable[int]) -> float:
    """Return the proportional set size of some processes: shared memory is divided among its users."""
    return sum(_memory(pid, "Pss") for pid in pids)


def own_mb(pid: int) -> float:
    """Return the resident memory that a process has written and does not share with any other."""
    return _memory(pid, "Private_Dirty")


def _memory(pid: int, kind: str) -> float:
    found = re.search(rf"^{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found, f"the kernel does not tell {kind} of process {pid}"
    return int(found[1]) / 1024
