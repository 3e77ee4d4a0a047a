"""The first process of a PID namespace, by which all the others in it are ended."""

import contextlib
import os
import select
import signal

from services.execution.processes import orphans


class Init:
    """One of them, held by a pidfd: its number may be another process's by now."""

    def __init__(self, pid: int) -> None:
        """Hold the process `pid`. Raises OSError: it is not there."""
        self.fd = os.pidfd_open(pid)
        """Becomes readable when it has ended."""
        self.pid = pid

    def release(self) -> None:
        """Hold it no longer."""
        os.close(self.fd)

    def terminate(self) -> int:
        """Ask its children to end, for it ignores that itself; return how many it has."""
        children = orphans.children(self.pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        return len(children)

    def kill(self) -> None:
        """End it, and with it the kernel ends every process in its namespace."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)

    def left(self, timeout_s: float) -> int:
        """Wait for its end: 0 when nothing is left of the namespace, else how many processes are."""
        if readable(self.fd, timeout_s):
            return 0
        return 1 + len(orphans.descendants(self.pid))


def readable(fd: int, timeout_s: float) -> bool:
    """Whether a descriptor becomes readable in time."""
    return bool(select.select([fd], [], [], timeout_s)[0])
