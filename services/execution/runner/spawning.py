"""Starting a program with pipes to read from."""

import contextlib
import fcntl
import os
import subprocess

from services.sandbox.launch import Launch

# As good as a megabyte, measured; and the kernel lets the pipes of one user have 64 MiB in all (pipe-user-pages-soft).
PIPE_BYTES = 256 * 1024
"""How large a pipe for output is made."""


def spawn(launch: Launch, stdin: int) -> "subprocess.Popen[bytes]":
    """Start what was prepared, in a session of its own; `stdin` stays the caller's."""
    return subprocess.Popen(
        launch.argv,
        bufsize=0,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=launch.env,
        cwd=launch.cwd,
        pass_fds=launch.pass_fds,
        start_new_session=True,
    )


def pipes(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Give the non-blocking descriptors of its standard output and error."""
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the program was started without pipes")
    fds = process.stdout.fileno(), process.stderr.fileno()
    for fd in fds:
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # a larger pipe is only faster, and a user may hold so many
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return fds
