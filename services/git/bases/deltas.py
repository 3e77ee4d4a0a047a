"""Delta layers: a commit's tree as its difference from an existing base, for an overlay to stack on that base.

A layer holds new and changed files, a whiteout (a character device 0:0) for each removed one, and a complete `.git` of
its own. It needs no extended attributes: a directory is never replaced as a whole; instead each of its removed entries
gets a whiteout. So both kinds of kernel overlay read it alike, root's (`trusted.*`) and a user namespace's (`user.*`),
and an ordinary user can write it.
"""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.disk.base_cache import BaseCache, CachedBase
from services.git.gitcmd import Command, Git, Invocation

# Each further layer costs one more lookup per path; the kernel's limit is 500.
_MAX_LAYERS: Final = 4
# A smaller tree is checked out whole in the same time (about 60 ms).
_WORTH_INODES: Final = 500
# Measured: 1,400 changed files take 650 ms. A layer of more than 1/_MAX_PART of the tree saves too little.
_MAX_CHANGES: Final = 3000
_MAX_PART: Final = 4
_NEAR_ENOUGH: Final = 50
_ANCESTORS: Final = 1000
_RECENT: Final = 2
_LINK: Final = b"160000"
_DOT_GIT: Final = b".git"


@dataclass(frozen=True, slots=True)
class Delta:
    """What turns the tree of the base below into a commit's tree. Paths are relative to the top of the tree."""

    below: CachedBase
    written: tuple[bytes, ...]
    removed: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """How many paths differ."""
        return len(self.written) + len(self.removed)


class DeltaLayers:
    """Finds the nearest base, and writes layers over it."""

    def __init__(self, git: Git, cache: BaseCache) -> None:
        self._git = git
        self._cache = cache

    async def plan(self, repository_id: str, commit_id: str, git_dir: Path, submodules_key: str) -> Delta | None:
        """Find the base nearest to the commit; None when a whole tree is as good.

        Candidates are the nearest ancestor along first parents, and the bases used last, because a branch may have
        moved back. They have the same submodules.
        """
        with_same = (base for base in self._cache.of(repository_id) if base.submodules_key == submodules_key)
        usable = [base for base in with_same if _may_lie_below(base)]
        if not usable:
            return None
        flags = ("--first-parent", f"--max-count={_ANCESTORS}")
        listing = await self._git.run(Command("rev-list", flags, (commit_id,)), Invocation(git_dir=git_dir))
        order = {line.decode(): number for number, line in enumerate(listing.stdout.split())}
        ancestors = sorted((base for base in usable if base.commit_id in order), key=lambda base: order[base.commit_id])
        best: Delta | None = None
        for base in dict.fromkeys((*ancestors[:1], *usable[:_RECENT])):
            delta = await self._compare(base, commit_id, git_dir)
            if delta is not None and (best is None or delta.size < best.size):
                best = delta
            if best is not None and best.size <= _NEAR_ENOUGH:
                break
        return best

    async def write(self, delta: Delta, commit_id: str, tree: Path) -> None:
        """Fill `tree`, which holds only a `.git`."""
        git_dir = tree / ".git"
        inside = Invocation(git_dir=git_dir, cwd=tree, timeout_seconds=1800)
        shutil.copy2(delta.below.layers[0] / ".git" / "index", git_dir / "index")
        await self._git.run(Command("read-tree", ("-i", "-m"), (delta.below.commit_id, commit_id)), inside)
        if delta.written:
            names = tree.parent / "written"
            names.write_bytes(b"\0".join(delta.written) + b"\0")
            from_list = Invocation(git_dir=git_dir, cwd=tree, stdin_file=names, timeout_seconds=1800)
            await self._git.run(Command("checkout-index", ("-u", "-z", "--stdin")), from_list)
            names.unlink()
        await self._git.run(Command("update-ref", ("--no-deref",), ("HEAD", commit_id)), inside)
        if (modules := delta.below.layers[0] / ".git" / "modules").is_dir():
            await asyncio.to_thread(shutil.copytree, modules, git_dir / "modules", symlinks=True)
        directories = await self._directories(commit_id, inside) if delta.removed else frozenset()
        await asyncio.to_thread(_white_out, tree, delta, directories)

    async def _compare(self, base: CachedBase, commit_id: str, git_dir: Path) -> Delta | None:
        """Return the difference; None when it is too large, or a checkout does more than write changed files."""
        flags = ("--raw", "-z", "--no-renames", "--no-ext-diff", "--no-textconv")
        raw = await self._git.run(Command("diff", flags, (base.commit_id, commit_id)), Invocation(git_dir=git_dir))
        fields = raw.stdout.split(b"\0")
        records = list(zip(fields[0:-1:2], fields[1:-1:2], strict=True))
        if len(records) > min(_MAX_CHANGES, base.whole.inodes // _MAX_PART):
            return None
        for facts, path in records:
            # Attributes change how even unchanged files are written; a submodule link stands for a directory.
            if path.rpartition(b"/")[2] in {b".gitattributes", b".gitmodules"} or _LINK in facts[:14]:
                return None
            if not {b"", b".", b"..", _DOT_GIT}.isdisjoint(path.split(b"/")):
                return None
        removed = tuple(path for facts, path in records if facts.endswith(b" D"))
        written = tuple(path for facts, path in records if not facts.endswith(b" D"))
        return Delta(base, written, removed)

    async def _directories(self, commit_id: str, inside: Invocation) -> frozenset[bytes]:
        listing = await self._git.run(Command("ls-tree", ("-r", "-d", "-z", "--name-only"), (commit_id,)), inside)
        return frozenset(listing.stdout.split(b"\0"))


def _may_lie_below(base: CachedBase) -> bool:
    return len(base.layers) < _MAX_LAYERS and base.whole.inodes >= _WORTH_INODES


def _white_out(tree: Path, delta: Delta, directories: frozenset[bytes]) -> None:
    """Hide each removed path of the base below: its topmost directory that is gone, or else the file itself."""
    for path in delta.removed:
        parts = path.split(b"/")
        prefixes = (b"/".join(parts[:length]) for length in range(1, len(parts) + 1))
        gone = next((prefix for prefix in prefixes if prefix not in directories), None)
        if gone is not None:
            _hide(tree / os.fsdecode(gone))
    hide_git_below(tree, delta.below.layers)


def hide_git_below(tree: Path, layers: Iterable[Path]) -> None:
    """Hide what the `.git` of layers below has, and a layer's own has not: nothing of those may show through."""
    own = tree / ".git"
    for layer in layers:
        for directory, _, names in os.walk(layer / ".git"):
            for name in names:
                _hide(own / Path(directory, name).relative_to(layer / ".git"))


def _hide(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # a new file is there, or it is hidden already
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
