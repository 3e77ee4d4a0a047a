"""Measures directories: their files, and the disk space that they take."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TreeContents:
    """The files of a tree, each as (path, size, second of the last change), and the disk space of all."""

    files: list[tuple[str, int, int]]
    bytes: int
    inodes: int


def walk_tree(tree: Path) -> TreeContents:
    """Walk over a tree. Files below `.git` count towards the totals, but are not listed. Blocks.

    Files that vanish meanwhile, as in a mirror during a fetch, are not counted.
    """
    files: list[tuple[str, int, int]] = []
    size = inodes = 0
    git_directory = f"{tree}/.git/"
    for entry in _entries(str(tree)):
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            size += status.st_blocks * 512
            inodes += 1
            if not entry.is_dir(follow_symlinks=False) and not entry.path.startswith(git_directory):
                files.append((entry.path, status.st_size, int(status.st_mtime)))
    return TreeContents(files, size, inodes)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    todo = [directory]
    while todo:
        with contextlib.suppress(FileNotFoundError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
