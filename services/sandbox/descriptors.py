"""Descriptors that a sandboxed program can read, and that lead to nothing of the host.

A process can open the file of a descriptor again, and change its mode or write to it if the file's owner may; when root
runs the service, that owner is the agent.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from services.sandbox import device_nodes


@contextlib.contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """Give a descriptor that reads `content` from its beginning. Unlike a pipe it takes any size without a reader."""
    with os.fdopen(os.memfd_create("boatyard"), "r+b", buffering=0) as file, high(file.fileno()) as fd:
        file.write(content)
        file.seek(0)
        yield fd


@contextlib.contextmanager
def high(fd: int) -> Iterator[int]:
    """Give a copy of a descriptor with more than one digit: a shell may have use for those with one."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    try:
        yield copy
    finally:
        os.close(copy)


@contextlib.contextmanager
def null_device() -> Iterator[int]:
    """Give a descriptor of /dev/null, and not of an empty file: some programs search a file that is their input."""
    null = Path(os.devnull)
    with contextlib.suppress(OSError):  # then `device_nodes.weakness` says so
        null = device_nodes.nodes().get("null", null)
    fd = os.open(null, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
