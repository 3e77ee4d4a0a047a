"""One shell that stays: directory, variables and functions of a call are still there in the next."""

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

_DEFAULT_S, _MAX_S = 120, 600
_CHUNK = 64 * 1024
_HEAD, _TAIL = 40_000, 80_000
_DRAIN_S = 0.05
# The command reads nothing, and does not inherit the pipe on which the shell reports its exit code. `eval` runs it in
# the shell itself; the newline prevents a comment at its end from hiding what follows.
_LINE = 'eval "$(cat {file})" </dev/null {status}>&-\nprintf "%d\\n" "$?" >&{status}\n'


class Shell:
    """A shell in a session of its own. It is started by the first call, and again after it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path.cwd()
        self._output = self._status = -1
        self._files = 0

    def call(self, arguments: Mapping[str, Any]) -> str:
        """Run a command; `restart` starts a new shell first. Raises ToolError when it does not end in time."""
        restart = arguments.get("restart") is True
        if restart:
            self.end()
            self._directory = Path.cwd()
            if not arguments.get("command"):
                return "a new shell begins with the next command"
        command = text_of(arguments, "command")
        seconds = number_of(arguments, "timeout_seconds", _DEFAULT_S, 1, _MAX_S)
        process = self._running()
        self._send(process, command)
        output = _Output()
        code = self._await(output, time.monotonic() + seconds)
        if code is None and process.poll() is None:
            self._give_up()
            raise ToolError(
                output.text(
                    f"[the command took longer than {seconds} s, so it was ended with its whole process group, and the"
                    " shell with it: variables are lost, a new shell begins in the same directory. Run what takes long"
                    f" in the background, or give it a larger timeout_seconds (at most {_MAX_S})]"
                )
            )
        if code is None:
            code = process.wait()
            self.end()
            return output.text(f"[{_exit_text(code)}; it ended the shell itself: the next command gets a new one]")
        with contextlib.suppress(OSError):
            self._directory = Path(f"/proc/{process.pid}/cwd").readlink()
        return output.text("" if code == 0 else f"[{_exit_text(code)}]")

    def end(self) -> None:
        """Kill the shell and its process group."""
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
        """Pass a command through a file: a pipe holds only so much, and a shell reads it byte by byte."""
        self._files += 1
        file = Path(tempfile.gettempdir(), f".call-{os.getpid()}-{self._files}")
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as script:
            script.write(command.encode("utf-8", "surrogateescape") + b"\n")
        line = _LINE.format(file=f"'{file}'; rm -f '{file}'", status=self._status_number)
        if process.stdin is None:
            raise RuntimeError("the shell was started without a pipe")
        with contextlib.suppress(BrokenPipeError):  # the shell has just ended, which `_await` notices
            process.stdin.write(line.encode())

    def _await(self, output: "_Output", deadline: float) -> int | None:
        """Collect output; return the exit code that the shell reports, None when the shell or the time ends first."""
        status = b""
        while (seconds := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._output, self._status], [], [], seconds)
            if self._output in ready and not output.read(self._output):
                return None
            if self._status in ready:
                chunk = os.read(self._status, 64)
                status += chunk
                if status.endswith(b"\n"):
                    output.drain(self._output)
                    return int(status)
                if not chunk:  # the shell closed it when it ended
                    self._collect_rest(output)
                    return None
        return None

    def _collect_rest(self, output: "_Output") -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
        output.drain(self._output)

    def _give_up(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._directory = Path(f"/proc/{self._process.pid}/cwd").readlink()
        self.end()


class _Output:
    """The beginning and the end of a command's output, which may be of any length."""

    def __init__(self) -> None:
        self._head, self._tail, self._dropped = bytearray(), bytearray(), 0

    def read(self, fd: int) -> bool:
        """Read once; return False at the end of the output."""
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
        """Read what was written before the command ended, without waiting for a daemon that continues to write."""
        deadline = time.monotonic() + _DRAIN_S
        while select.select([fd], [], [], 0)[0] and self.read(fd) and time.monotonic() < deadline:
            pass

    def text(self, end: str = "") -> str:
        """Return what was kept, as text, with `end` as its last line."""
        gap = b"\n[... %d bytes left out ...]\n" % self._dropped if self._dropped else b""
        text = bytes(self._head + gap + self._tail).decode("utf-8", "replace").rstrip("\n")
        return "\n".join(part for part in (text, end) if part)


def _exit_text(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
