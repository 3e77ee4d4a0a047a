"""Descriptors that a sandboxed program can read, and that lead to nothing of the host.

A process can open the file of a descriptor again, and change its mode or write to it if the file's owner may; when root
runs the service, that owner is the agent.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from services.sandbox import device_nodes


@contextlib.contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """Give a descriptor that reads `content` from its beginning. Unlike a pipe it takes any size without a reader."""
    fd = os.memfd_create("boatyard")
    with os.fdopen(fd, "r+b", buffering=0) as file:
        file.write(content)
        file.seek(0)
        yield fd


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
