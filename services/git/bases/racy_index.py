"""Prevents a racy index: makes the files of a new tree older than its index, so that git need not read them again.

Git trusts an index entry only when the file is older than the index by a full second, and reads all other files at each
`status`: in every workspace over the tree, for ever (measured on 236 files: 9 ms against 4).
"""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.git.disk.walk import TreeContents, walk_tree
from services.git.gitcmd import Command, Git, Invocation

BY_TIME_AND_SIZE: Final = {"core.checkStat": "minimal", "core.trustctime": "false"}
"""What makes git compare no owners, inodes and times of change, which are others in a copy."""
# The cost of setting a file's times and having git read it again, per file and per byte (measured on ext4).
_SECONDS_PER_FILE: Final = 60e-6
_SECONDS_PER_BYTE: Final = 1 / 300e6


async def prevent_racy_index(git: Git, tree: Path, inner: Iterable[tuple[Path, Path]] = ()) -> TreeContents:
    """Make all files older than the index, the cheaper way: wait for the next second, or set their times back.

    Only files of the current second matter; git reads once more those whose times were set back. `tree` has a `.git`
    and was just filled by git; it may be a layer, which lacks files that its index lists. `inner` are the git
    directories and the trees of the submodules in it.
    """
    contents = await asyncio.to_thread(walk_tree, tree)
    repositories = ((tree / ".git", tree), *inner)
    indexes = [git_dir / "index" for git_dir, _ in repositories]
    now = min(map(_touch, indexes))
    young = [(path, size) for path, size, second in contents.files if second >= int(now)]
    to_set_back = sum(_SECONDS_PER_FILE + size * _SECONDS_PER_BYTE for _, size in young)
    to_wait = 1 - now % 1
    if to_wait < to_set_back:
        while (later := min(map(_touch, indexes))) < int(now) + 1:  # noqa: ASYNC110 - a clock tells nobody
            await asyncio.sleep(int(now) + 1 - later)
    elif young:
        await asyncio.to_thread(_set_back, (path for path, _ in young), int(now) - 2)
        for git_dir, directory in repositories:
            inside = Invocation(git_dir=git_dir, cwd=directory, timeout_seconds=1800)
            await git.run(Command("update-index", ("-q", "--refresh", "--ignore-missing")), inside)
            _touch(git_dir / "index")
    return contents


def _touch(path: Path) -> float:
    """Set a file's time to the file system's now, and return it: that clock may lag some milliseconds behind ours."""
    os.utime(path)
    return path.stat().st_mtime


def _set_back(paths: Iterable[str], second: int) -> None:
    for path in paths:
        os.utime(path, (second, second), follow_symlinks=False)
