"""The door's process, as it is after the fork."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from services.execution.door.reports import Reporter, Reports
from services.execution.door.server import Door

_STDIN, _STDERR = 0, 2
_END = signal.SIGTERM
_IGNORED = (signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def ends_held_back() -> Iterator[None]:
    """Block the signal that ends a door, for a fork: sent before the door can act on it, it waits until it can."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {_END})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(listening: socket.socket, reports: int, life: int, door: Callable[[Reporter], Door]) -> NoReturn:
    """Serve until asked to end, or until the other end of `life` is closed, as it is when the runner has ended.

    The process was forked with `ends_held_back`.
    """
    try:
        _let_go(listening.fileno(), reports, life)
        asyncio.run(_serve(listening, life, door(Reports(reports))))
    except BaseException as error:  # noqa: BLE001 - this is the end of the process: nothing of the runner's may follow
        os.write(_STDERR, f"the model's door has ended: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(0)


def _let_go(*kept: int) -> None:
    """Let go of all that was the runner's: descriptors but these, and what its signals do."""
    signal.set_wakeup_fd(-1)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > _STDERR and fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


async def _serve(listening: socket.socket, life: int, door: Door) -> None:
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(door.serve(listening))
    loop.add_signal_handler(_END, serving.cancel)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {_END})
    loop.add_reader(life, os._exit, 1)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
