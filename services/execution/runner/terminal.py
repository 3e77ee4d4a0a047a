"""The terminal of a program that wants one: what it shows is output, and what is typed comes by a named pipe."""

import contextlib
import fcntl
import math
import os
import struct
import termios
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

from services.execution.keyboard import Listener
from services.execution.model import TerminalSize
from services.sandbox.spec import SandboxSpec, Tier

_RETRY_S = 0.01
# Only the program itself gets the terminal: what the sandbox has to complain about stays apart, on standard error.
_SANDBOXED = b'exec setsid -c "$@" 1>&0 2>&0'
# The first terminal that a session's leader opens is its own; without a sandbox the program leads one already.
_BARE = b'exec "$@" <>"$0" 1>&0 2>&0'


class Terminal:
    """One terminal. It is there as long as the runner, whoever opens and closes it inside."""

    def __init__(self, keyboard: Path, size: TerminalSize) -> None:
        self.screen, self.program_end = os.openpty()
        os.set_blocking(self.screen, False)
        self._listener = Listener(keyboard)
        self.keys = self._listener.fd
        self._typed: deque[bytes] = deque()
        self._retry_at = math.inf
        self._resize(size.rows, size.columns)

    def wrap(self, spec: SandboxSpec) -> SandboxSpec:
        """The spec of a program that is started with `program_end` as its standard input."""
        if spec.tier is Tier.NONE:
            return replace(spec, argv=(b"/bin/sh", b"-c", _BARE, os.fsencode(os.ttyname(self.program_end)), *spec.argv))
        return replace(spec, argv=(b"/bin/sh", b"-c", _SANDBOXED, b"sh", *spec.argv))

    def listen(self) -> None:
        """Take what was typed, unless the program has still to read what was typed before."""
        if self._typed:
            self._retry_at = time.monotonic() + _RETRY_S
            time.sleep(_RETRY_S / 2)  # the pipe stays full meanwhile: who types faster than the program reads waits
            return
        for typed in self._listener.read():
            if isinstance(typed, tuple):
                self.push()
                self._resize(*typed)
            else:
                self._typed.append(typed)
        self.push()

    def due(self) -> float:
        """When `push` is to be called again, on the monotonic clock."""
        return self._retry_at

    def push(self) -> None:
        """Hand to the terminal as much as it takes."""
        with contextlib.suppress(BlockingIOError):
            while self._typed:
                rest = self._typed[0][os.write(self.screen, self._typed[0]) :]
                if rest:
                    self._typed[0] = rest
                else:
                    self._typed.popleft()
        self._retry_at = time.monotonic() + _RETRY_S if self._typed else math.inf

    def _resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
