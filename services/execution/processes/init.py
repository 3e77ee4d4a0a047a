"""The first process of a PID namespace: when it ends, the kernel ends all others in the namespace."""

import contextlib
import os
import select
import signal

from services.execution.processes import orphans


class Init:
    """The init of one namespace, held by a pidfd, because its pid may have been reused."""

    def __init__(self, pid: int) -> None:
        """Hold the process `pid`. Raises OSError when there is none."""
        self.fd = os.pidfd_open(pid)
        """Becomes readable when the init has ended."""
        self.pid = pid

    def release(self) -> None:
        """Close the pidfd."""
        os.close(self.fd)

    def terminate(self) -> int:
        """Ask the children of the init to end, because it ignores that itself; return how many there are."""
        children = orphans.children(self.pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        return len(children)

    def kill(self) -> None:
        """Kill the init: the kernel then ends every process in its namespace."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)

    def processes_left(self, timeout_s: float) -> int:
        """Wait for the end of the init; return how many processes of the namespace are left, 0 when it has ended."""
        if readable(self.fd, timeout_s):
            return 0
        return 1 + len(orphans.descendants(self.pid))


def readable(fd: int, timeout_s: float) -> bool:
    """Return whether a descriptor becomes readable in time."""
    return bool(select.select([fd], [], [], timeout_s)[0])
