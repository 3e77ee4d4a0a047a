"""The signals that end a program, as bytes on a descriptor that the runner can wait for."""

import os
import signal


def listen() -> int:
    """Have signals arrive at a descriptor. They get handlers, because the agent would inherit ignored signals."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return readable


def arrived(fd: int) -> bool:
    """Return whether a signal has arrived since the last call."""
    try:
        return bool(os.read(fd, 4096))
    except BlockingIOError:
        return False
