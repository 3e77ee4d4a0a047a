"""The terminal of a program that wants one: what the terminal shows is output, and input comes through a named pipe."""

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

from services.execution.inbox.terminal_input import TerminalInputReader
from services.execution.model import TerminalSize
from services.sandbox.spec import SandboxSpec, Tier

_RETRY_S = 0.01
# Only the program itself gets the terminal: complaints of the sandbox stay apart, on standard error.
_SANDBOXED = b'exec setsid -c "$@" 1>&0 2>&0'
# The first terminal that a session leader opens becomes its controlling terminal; without a sandbox the program is
# already a session leader.
_BARE = b'exec "$@" <>"$0" 1>&0 2>&0'


class Terminal:
    """One terminal. It exists as long as the runner does, whoever opens and closes it in the sandbox."""

    def __init__(self, terminal_input: Path, size: TerminalSize) -> None:
        self.screen, self.program_end = os.openpty()
        os.set_blocking(self.screen, False)
        self._reader = TerminalInputReader(terminal_input)
        self.keys = self._reader.fd
        self._typed: deque[bytes] = deque()
        self._retry_at = math.inf
        self._resize(size.rows, size.columns)

    def wrap(self, spec: SandboxSpec) -> SandboxSpec:
        """Return the spec of the program when it is started with `program_end` as its standard input."""
        if spec.tier is Tier.NONE:
            return replace(spec, argv=(b"/bin/sh", b"-c", _BARE, os.fsencode(os.ttyname(self.program_end)), *spec.argv))
        return replace(spec, argv=(b"/bin/sh", b"-c", _SANDBOXED, b"sh", *spec.argv))

    def listen(self) -> None:
        """Take what was typed, unless the program has yet to read what was typed before."""
        if self._typed:
            self._retry_at = time.monotonic() + _RETRY_S
            # Meanwhile the pipe stays full, so whoever types faster than the program reads has to wait.
            time.sleep(_RETRY_S / 2)
            return
        for event in self._reader.read():
            if isinstance(event, tuple):
                self.push()
                self._resize(*event)
            else:
                self._typed.append(event)
        self.push()

    def due(self) -> float:
        """When to call `push` again, on the monotonic clock."""
        return self._retry_at

    def push(self) -> None:
        """Write to the terminal as much as it accepts."""
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
