"""Forks runners, from a process that has loaded what they need: 3 ms and 1 MB a runner, in place of 50 ms and 11 MB.

The service starts it with one end of a SEQPACKET socket as standard input, and is the only one who speaks to it. The
first packet names the engines to preload, separated by spaces. Each further one asks for a runner, and brings the
descriptor of the runner's standard input; the answer is the runner's pid with a pidfd, or an errno without one.

A runner that was forked depends on nobody: when this process is killed, it goes on. This process ends when the service
closes its end, or ends itself.
"""

import os
import signal
import socket
import sys
from pathlib import Path

from services.execution.door.child import preload
from services.execution.engine import load

_PACKET_BYTES = 4096
_STDIN = 0


def serve() -> None:
    """Fork runners for the service on standard input. Returns in each of them, with a standard input of its own.

    In this process it does not return: it exits when the service has closed the socket.
    """
    with socket.socket(fileno=os.dup(_STDIN)) as control:
        try:
            _serve(control)
        except ConnectionError:  # the service was killed before it had our answer
            sys.exit()


def _serve(control: socket.socket) -> None:
    for engine in control.recv(_PACKET_BYTES).decode().split():
        load(engine).preload()
    preload()
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("an engine's modules have started a thread, and such a process cannot be forked safely")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel forgets runners when they end
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _PACKET_BYTES, 1)
        if not request:
            sys.exit()
        (stdin,) = descriptors
        try:
            if _forked(control):
                os.dup2(stdin, _STDIN)
                return
        finally:
            os.close(stdin)


def _forked(control: socket.socket) -> bool:
    """Fork; return True in the runner. In this process, answer the service and return False."""
    try:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return True
        # It cannot have ended by itself: it waits for its standard input, which the service holds until we answer.
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        control.send(str(-(error.errno or 0)).encode())
        return False
    socket.send_fds(control, [str(pid).encode()], [pidfd])
    os.close(pidfd)
    return False
