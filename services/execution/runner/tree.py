"""What a tree of processes uses, summed up in /proc: for machines that let us make no control groups.

It sees who is there at the moment of the look. Memory is what each process has for itself, and the largest part that
one shares with others; time on a processor is that of the living and of those that a living parent has waited for.
"""

import os
from pathlib import Path

from services.execution.model import Vitals
from services.execution.runner import orphans

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _THREADS = 11, 17  # positions after the command's name: see proc(5), stat


def measure(root: int, *, with_root: bool) -> Vitals:
    """Sum up the descendants of `root`, and with `with_root` itself; its `memory_peak_bytes` is that of this moment."""
    ticks = own = shared = threads = 0
    for pid in [root, *orphans.descendants(root)]:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            _, resident, common, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
        except (OSError, ValueError):
            continue  # it has just ended
        if pid == root and not with_root:
            ticks += sum(map(int, stat[_UTIME + 2 : _UTIME + 4]))  # of children that it has waited for
            continue
        ticks += sum(map(int, stat[_UTIME : _UTIME + 4]))
        threads += int(stat[_THREADS])
        own += resident - common
        shared = max(shared, common)
    memory = (own + shared) * _PAGE
    return Vitals(ticks / _TICKS, memory, memory, threads)
