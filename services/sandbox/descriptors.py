"""Descriptors for a sandboxed program to read from, through which it reaches nothing of the host's.

Whoever has a descriptor may open what it leads to once more, and change its mode or write to it where its owner may:
and where root runs the service, that is the agent.
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
    """Give a descriptor of /dev/null: an empty file would not do, for programs that are given one search that."""
    null = Path(os.devnull)
    with contextlib.suppress(OSError):  # then `device_nodes.weakness` says so
        null = device_nodes.nodes().get("null", null)
    fd = os.open(null, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
