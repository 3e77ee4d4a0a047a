"""Finding processes by their parents, in /proc."""

import contextlib
import os
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


_spared: set[int] = set()


def spare(pid: int) -> None:
    """Leave out a child of ours that is no process of the program."""
    _spared.add(pid)


def children(pid: int) -> list[int]:
    """Return the children of all threads of a process; none when it is gone."""
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    return [child for child in pids if child not in _spared]


def descendants(pid: int) -> list[int]:
    """Return the children, their children, and so on."""
    pids: list[int] = []
    for child in children(pid):
        pids += [child, *descendants(child)]
    return pids


def adopt() -> None:
    """Become the parent of every descendant whose parent dies, instead of the machine's init."""
    import ctypes  # noqa: PLC0415 - 8 ms and 1 MB that only a run without a sandbox pays

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def end(timeout_s: float) -> int:
    """Kill all our descendants, also those that we adopt meanwhile; return how many remain after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while remaining := descendants(os.getpid()):
        if time.monotonic() > deadline:
            return len(remaining)
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        time.sleep(0.002)
    return 0
