"""How much there is to read in a tree, counted before git reads it: a sparse file of 1 TB takes nothing on the disk."""

import contextlib
import os
from dataclasses import dataclass
from typing import Final

from services.git.model import WorkingTree

_MOST_SHOWN: Final = 60


class TreeTooLarge(Exception):
    """A tree has more to read than a result may; the message says what."""


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """The most that is read of one tree: bytes as programs see them, and files, links and directories together."""

    bytes: int = 32 << 30
    files: int = 2_000_000


def check_size(tree: WorkingTree, limits: TreeLimits) -> None:
    """Count what an agent made: the changes, where layers hold them, or else the whole tree. Blocks.

    What cannot be read here is left to git, which says more about it. A file counts at each of its names, because git
    reads it at each.

    Raises:
        TreeTooLarge: there is more than the limits allow; the rest is not counted.
    """
    size = files = 0
    todo = [os.fsencode(tree.layers.upper if tree.layers else tree.path)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                files += 1
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_size
                    if size > limits.bytes:
                        raise TreeTooLarge(f"it has more than {limits.bytes} bytes; {_facts(entry.name, status)}")
                if files > limits.files:
                    raise TreeTooLarge(f"it has more than {limits.files} files and directories")


def shown(path: bytes) -> str:
    """Return a path for a message: one that is long without its middle."""
    text = path.decode("utf-8", "replace")
    return text if len(text) <= 2 * _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…{text[-_MOST_SHOWN:]}"


def _facts(name: bytes, status: os.stat_result) -> str:
    return f"{shown(name)!r} alone has {status.st_size}, of which {status.st_blocks * 512} are on the disk"
