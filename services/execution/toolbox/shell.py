"""One shell that stays: the directory, variables and functions of a call are there in the next."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.execution.toolbox.answer import ToolError, number_of, text_of

_DEFAULT_S, _LONGEST_S = 120, 600
_CHUNK = 64 * 1024
_HEAD, _TAIL = 40_000, 80_000
_SETTLE_S = 0.05
# What is run reads nothing, and does not hold the pipe on which the shell says that it is done. `eval` runs it in the
# shell itself; the newline keeps a comment at its end from hiding what follows.
_LINE = 'eval "$(cat {file})" </dev/null {status}>&-\nprintf "%d\\n" "$?" >&{status}\n'


class Shell:
    """A shell in a session of its own. It is started by the first call, and again after it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path.cwd()
        self._output = self._status = -1
        self._files = 0

    def call(self, given: Mapping[str, Any]) -> str:
        """Run a command; `restart` begins with a new shell. Raises ToolError when it does not end in time."""
        restart = given.get("restart") is True
        if restart:
            self.end()
            self._directory = Path.cwd()
            if not given.get("command"):
                return "a new shell begins with the next command"
        command = text_of(given, "command")
        seconds = number_of(given, "timeout_seconds", _DEFAULT_S, 1, _LONGEST_S)
        process = self._running()
        self._send(process, command)
        kept = _Kept()
        code = self._await(kept, time.monotonic() + seconds)
        if code is None and process.poll() is None:
            self._give_up()
            raise ToolError(
                kept.text(
                    f"[the command took longer than {seconds} s, so it was ended with its whole process group, and the"
                    " shell with it: variables are lost, a new shell begins in the same directory. Run what takes long"
                    f" in the background, or give it a larger timeout_seconds (at most {_LONGEST_S})]"
                )
            )
        if code is None:
            code = process.wait()
            self.end()
            return kept.text(f"[{_how(code)}; it ended the shell itself: the next command gets a new one]")
        with contextlib.suppress(OSError):
            self._directory = Path(f"/proc/{process.pid}/cwd").readlink()
        return kept.text("" if code == 0 else f"[{_how(code)}]")

    def end(self) -> None:
        """End the shell and its process group."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for fd in (self._output, self._status):
            os.close(fd)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.end()
        self._output, output = os.pipe()
        self._status, status = os.pipe()
        self._status_number = status
        shell = ["bash", "--noprofile", "--norc"] if shutil.which("bash") else ["/bin/sh"]
        directory = self._directory if self._directory.is_dir() else Path.cwd()
        try:
            self._process = subprocess.Popen(
                shell,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=directory,
                pass_fds=(status,),
                bufsize=0,
                start_new_session=True,
            )
        finally:
            os.close(output)
            os.close(status)
        os.set_blocking(self._output, False)
        os.set_blocking(self._status, False)
        return self._process

    def _send(self, process: "subprocess.Popen[bytes]", command: str) -> None:
        """Give a command by a file: a pipe would take only so much of it, and a shell reads a pipe byte by byte."""
        self._files += 1
        file = Path(tempfile.gettempdir(), f".call-{os.getpid()}-{self._files}")
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as script:
            script.write(command.encode("utf-8", "surrogateescape") + b"\n")
        line = _LINE.format(file=f"'{file}'; rm -f '{file}'", status=self._status_number)
        if process.stdin is None:
            raise RuntimeError("the shell was started without a pipe")
        with contextlib.suppress(BrokenPipeError):  # it has just ended, which is told by whoever waits for it
            process.stdin.write(line.encode())

    def _await(self, kept: "_Kept", deadline: float) -> int | None:
        """Collect output until the shell says that it is done; None when it ends, or the time does."""
        said = b""
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._output, self._status], [], [], left)
            if self._output in ready and not kept.read(self._output):
                return None
            if self._status in ready:
                chunk = os.read(self._status, 64)
                said += chunk
                if said.endswith(b"\n"):
                    kept.drain(self._output)
                    return int(said)
                if not chunk:  # the shell has closed it in ending
                    self._settle(kept)
                    return None
        return None

    def _settle(self, kept: "_Kept") -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
        kept.drain(self._output)

    def _give_up(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._directory = Path(f"/proc/{self._process.pid}/cwd").readlink()
        self.end()


class _Kept:
    """The beginning and the end of some output, of any length."""

    def __init__(self) -> None:
        self._head, self._tail, self._dropped = bytearray(), bytearray(), 0

    def read(self, fd: int) -> bool:
        """Take what there is; False at the end."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        room = _HEAD - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:] if room > 0 else chunk
        if (over := len(self._tail) - _TAIL) > _CHUNK * 4:
            del self._tail[:over]
            self._dropped += over
        return bool(chunk)

    def drain(self, fd: int) -> None:
        """Take what was written before the command ended. A daemon that goes on writing is not waited for."""
        until = time.monotonic() + _SETTLE_S
        while select.select([fd], [], [], 0)[0] and self.read(fd) and time.monotonic() < until:
            pass

    def text(self, end: str = "") -> str:
        """What was kept, as text, with a line at its end."""
        gap = b"\n[... %d bytes left out ...]\n" % self._dropped if self._dropped else b""
        text = bytes(self._head + gap + self._tail).decode("utf-8", "replace").rstrip("\n")
        return "\n".join(part for part in (text, end) if part)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
