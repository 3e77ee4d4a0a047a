"""Starting a program with pipes to read from."""

import contextlib
import fcntl
import os
import subprocess

from services.sandbox import host_uids
from services.sandbox.launch import Launch

# Measured: as fast as a megabyte; and the kernel allows the pipes of one user 64 MiB in all (pipe-user-pages-soft).
PIPE_BYTES = 256 * 1024
"""The size of a pipe for output."""


def spawn(launch: Launch, stdin: int) -> "subprocess.Popen[bytes]":
    """Start a prepared program in a session of its own; the caller still has to close `stdin`."""
    with contextlib.ExitStack() as stack:
        (output, output_end), (errors, errors_end) = os.pipe(), os.pipe()
        for fd in (output_end, errors_end):
            stack.callback(os.close, fd)
        for fd in (stdin, output_end, errors_end):
            host_uids.give(fd, launch.uid)
        process = subprocess.Popen(
            launch.argv,
            bufsize=0,
            stdin=stdin,
            stdout=output_end,
            stderr=errors_end,
            env=launch.env,
            cwd=launch.cwd,
            pass_fds=launch.pass_fds,
            start_new_session=True,
        )
    process.stdout, process.stderr = os.fdopen(output, "rb", 0), os.fdopen(errors, "rb", 0)
    return process


def pipes(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Make standard output and error of a process non-blocking, and return their descriptors."""
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the program was started without pipes")
    fds = process.stdout.fileno(), process.stderr.fileno()
    for fd in fds:
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # a larger pipe is only faster, and a user's pipes are limited
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return fds
