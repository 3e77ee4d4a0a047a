"""The signals that end a program, as bytes to read beside all else that the runner waits for."""

import os
import signal


def listen() -> int:
    """Have signals arrive at a descriptor. By a handler: what was ignored here would stay so in the agent."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return readable


def arrived(fd: int) -> bool:
    """Whether a signal has arrived since the last look."""
    try:
        return bool(os.read(fd, 4096))
    except BlockingIOError:
        return False
