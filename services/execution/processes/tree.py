"""What a tree of processes uses, summed up from /proc: for machines that let us make no control groups.

It sees the processes that exist at the moment of measuring. Processor time is that of living processes, and of those
that a living parent has waited for. Memory is what each process has for itself, plus the largest part that one of them
shares: too much when many were forked from one, because pages that they have not changed since count for each.
`proportional_memory` is exact, and takes a hundred times as long.
"""

import os
from pathlib import Path

from services.execution.model import Vitals
from services.execution.processes import orphans

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _THREADS = 11, 17  # positions after the command's name: see proc(5), stat


def measure(root: int) -> Vitals:
    """Sum up the descendants of `root`; `memory_peak_bytes` is the memory of this moment."""
    ticks = own = shared = threads = 0
    for pid in [root, *orphans.descendants(root)]:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            _, resident, common, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
        except (OSError, ValueError):
            continue  # it has just ended
        if pid == root:
            ticks += sum(map(int, stat[_UTIME + 2 : _UTIME + 4]))  # those of children that it has waited for
            continue
        ticks += sum(map(int, stat[_UTIME : _UTIME + 4]))
        threads += int(stat[_THREADS])
        own += resident - common
        shared = max(shared, common)
    memory = (own + shared) * _PAGE
    return Vitals(ticks / _TICKS, memory, memory, threads)


def proportional_memory(root: int) -> int | None:
    """Return the bytes of the descendants of `root`, shared ones divided among their users; None without permission."""
    total = 0
    for pid in orphans.descendants(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except PermissionError:
            return None
        except OSError:
            continue  # it has just ended
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
