"""Kills a sandbox from outside, at any moment after its start."""

import contextlib
import os
import signal
from pathlib import Path


def kill_with_children(pid: int) -> None:
    """Kill our child `pid`, bubblewrap or any other program, with its own children. The caller reaps it.

    When bubblewrap alone is killed in its first milliseconds, its child stays: the child waits for a message of its
    parent before it asks the kernel to die with it, and so waits for ever. So bubblewrap is stopped first: then it
    makes no child that we miss, and reaps none whose pid could become another's.
    """
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        for child in _children(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []
