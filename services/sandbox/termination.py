"""Ending a started sandbox from outside, at whatever moment of its life."""

import contextlib
import os
import signal
from pathlib import Path


def kill_with_children(pid: int) -> None:
    """Kill our child `pid`, bubblewrap or any other program, together with its own children; whoever started it reaps.

    Killed alone in its first milliseconds, bubblewrap leaves its child behind: that waits for a word of its parent
    before it asks the kernel to die with it, and so waits for ever. Stopped first, it makes no child that we miss, and
    lets none go whose number could become another's.
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
