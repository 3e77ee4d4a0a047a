"""Fills in the files of a base whose content is in Git LFS: with a layer over it, or a copy where there are no layers.

What cannot be had stays a pointer, and the base says so.
"""

import asyncio
import hashlib
import os
import shutil
import stat
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from services.common.caveats import CaveatKind
from services.git import failures
from services.git.bases.deltas import hide_git_below
from services.git.bases.found_submodules import Submodule
from services.git.bases.lfs_choice import LfsLimits, choose, left_out
from services.git.bases.lfs_files import LfsFile, find_lfs_files, keep_for_agents, take_contents
from services.git.bases.notes import read_notes, with_pointers, write_notes
from services.git.bases.racy_index import prevent_racy_index
from services.git.disk.base_cache import BaseCache, CachedBase
from services.git.disk.budget import Allowance, DiskBudget
from services.git.gitcmd import Git, GitError, Invocation
from services.git.model import Caveat, Progress, ProgressListener, Remote
from services.git.paths import GitPaths
from services.git.pointers import POINTER_BYTES, Pointer, parse_pointer
from services.git.single_flight import SingleFlight
from services.git.stores.lfs_objects import LfsObjects
from services.git.stores.lfs_transfer import LfsTransfer

_REMEMBERED: Final = 64
_UNUSUAL: Final = "its pointer is not as Git LFS writes them, so that git would find the file changed"


@dataclass(frozen=True, slots=True)
class _Found:
    """The pointers of a repository's commit, and why .lfsconfig leaves some of them out, by path."""

    files: Mapping[bytes, LfsFile]
    left_out: Mapping[bytes, str]


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the repositories of a base: its own, or that of a submodule at `path`, `git_dir` from the top's `.git`."""

    remote: Remote
    path: bytes = b""
    git_dir: Path = Path()

    def below(self, path: bytes) -> bytes:
        """Return a path in it, from the top."""
        return self.path + b"/" + path if self.path else path

    def git_dir_in(self, tree: Path) -> Path:
        """Return its git directory in a tree."""
        return tree / ".git" / self.git_dir

    def inside(self, tree: Path) -> Invocation:
        """Return how git is run in it."""
        return Invocation(git_dir=self.git_dir_in(tree), cwd=self.directory_in(tree), timeout_seconds=1800)

    def directory_in(self, tree: Path) -> Path:
        """Return its working tree in a tree."""
        return tree / os.fsdecode(self.path)


_Files = Mapping[_Part, Mapping[bytes, LfsFile]]


class LfsTrees:
    """Fills bases, each of which is then another base beside the one with pointers.

    Args:
        git: runs git.
        paths: where everything is.
        cache: has the bases.
        budget: of the disk.
        objects: the contents that are here.
        transfer: gets those that are not.
        limits: of one base.
        stacks: whether bases are layers.
    """

    def __init__(
        self,
        git: Git,
        paths: GitPaths,
        cache: BaseCache,
        budget: DiskBudget,
        *,
        objects: LfsObjects,
        transfer: LfsTransfer,
        limits: LfsLimits,
        stacks: bool,
    ) -> None:
        self._git = git
        self._paths = paths
        self._cache = cache
        self._budget = budget
        self._objects = objects
        self._transfer = transfer
        self._limits = limits
        self._stacks = stacks
        self._single_flight = SingleFlight[CachedBase]()
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._found: OrderedDict[Path, _Found] = OrderedDict()

    async def filled(
        self, plain: CachedBase, remote: Remote, submodules: Iterable[Submodule], report: ProgressListener
    ) -> tuple[CachedBase, tuple[Caveat, ...]]:
        """Return a base with the contents of Git LFS that could be had, and what it lacks.

        The caller holds `plain` and the mirrors of its submodules, which have Git LFS on servers of their own.

        Raises:
            FailedPrecondition: CLONE_FAILED, when git cannot make it.
            Exhausted: DISK_FULL.
        """
        notes = await asyncio.to_thread(read_notes, plain.path)
        if not any(note.kind is CaveatKind.LFS_POINTERS for note in notes):
            return plain, notes
        parts = [_Part(remote), *(_Part(each.remote, each.path, each.git_dir) for each in submodules)]
        had: dict[_Part, Mapping[bytes, LfsFile]] = {}
        missing: dict[bytes, str] = {}
        wanted: set[Pointer] = set()
        try:
            for part in parts:
                found = await self._find(plain, part)
                lacking = await self._get(part, found, wanted, report)
                had[part] = {path: file for path, file in found.files.items() if path not in lacking}
                missing |= {part.below(path): why for path, why in lacking.items()}
            notes = with_pointers(notes, missing)
            had = {part: files for part, files in had.items() if files}
            if not had:
                return plain, notes
            path = plain.path.with_name(f"{plain.path.name}-lfs{_key(missing)}")
            return await self._in_place(path, plain, had, notes, report), notes
        except GitError as error:
            raise failures.clone_failed(remote.repository_id, error) from error

    async def _find(self, plain: CachedBase, part: _Part) -> _Found:
        git_dir = part.git_dir_in(plain.layers[0])
        if git_dir in self._found:
            return self._found[git_dir]
        scratch = self._paths.scratch()
        try:
            files = await find_lfs_files(self._git, git_dir, scratch)
            found = _Found(files, await left_out(self._git, git_dir, files, scratch))
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        self._found[git_dir] = found
        if len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)
        return found

    async def _get(
        self, part: _Part, found: _Found, before: set[Pointer], report: ProgressListener
    ) -> dict[bytes, str]:
        """Get the contents that are not here; return why those cannot be had that are missing, by path.

        What is chosen is added to `before`.
        """
        chosen = {path: file for path, file in found.files.items() if path not in found.left_out}
        refused, wanted = choose(chosen.values(), self._limits, before)
        before |= wanted
        repository_id = part.remote.repository_id
        here = await asyncio.to_thread(self._here, repository_id, wanted)
        missing: dict[Pointer, str] = {}
        if wanted - here:
            report(Progress("Fetching Git LFS objects"))
            missing = await self._fetch(part.remote, wanted)
        here = await asyncio.to_thread(self._contents, repository_id, wanted - missing.keys())
        unusable = dict.fromkeys(wanted - missing.keys() - here, "its content is a pointer itself")
        reasons = refused | missing | unusable
        lacking = {
            path: reasons.get(file.pointer, _UNUSUAL)
            for path, file in chosen.items()
            if file.pointer in reasons or not file.is_usual
        }
        return {**found.left_out, **lacking}

    async def _fetch(self, remote: Remote, wanted: set[Pointer]) -> dict[Pointer, str]:
        """Get contents, one base of a repository after another: each finds what those before have got."""
        async with self._turns.setdefault(remote.repository_id, asyncio.Lock()):
            lacking = wanted - await asyncio.to_thread(self._here, remote.repository_id, wanted)
            if not lacking:
                return {}
            async with self._budget.reserve(0) as reserved:
                # What pointers say is not what comes: anybody can write one that claims more than any disk has.
                room = Allowance(reserved, sum(pointer.size for pointer in lacking))
                return await self._transfer.fetch(remote, lacking, room.use)

    def _here(self, repository_id: str, pointers: Iterable[Pointer]) -> set[Pointer]:
        return {pointer for pointer in pointers if self._objects.find(repository_id, pointer)}

    def _contents(self, repository_id: str, pointers: Iterable[Pointer]) -> set[Pointer]:
        """Return those that are here, and whose content git would not take for a pointer."""
        found = {pointer: self._objects.find(repository_id, pointer) for pointer in pointers}
        return {pointer for pointer, path in found.items() if path and not _is_pointer(pointer, path)}

    async def _in_place(
        self,
        path: Path,
        plain: CachedBase,
        files: _Files,
        notes: tuple[Caveat, ...],
        report: ProgressListener,
    ) -> CachedBase:
        if (cached := self._cache.hand_out(path)) is not None:
            return cached

        async def build(report: ProgressListener) -> CachedBase:
            report(Progress("Preparing the tree"))
            await self._build(path, plain, files, notes)
            made = self._cache.hand_out(path)
            if made is None:
                raise RuntimeError(f"{path} was built, and is missing")
            return made

        return await self._single_flight.join(path, build, report)

    async def _build(self, path: Path, plain: CachedBase, files: _Files, notes: tuple[Caveat, ...]) -> None:
        scratch = self._paths.scratch()
        building = scratch / "base"
        tree = building / "tree"
        contents_bytes = sum(file.pointer.size for of_part in files.values() for file in of_part.values())
        expected = contents_bytes + (0 if self._stacks else plain.bytes)
        try:
            async with self._budget.reserve(expected) as reserve:
                await asyncio.to_thread(_begin_layer if self._stacks else _copy, plain, tree)
                for part, of_part in files.items():
                    await asyncio.to_thread(self._write, part, tree, of_part)
                    await take_contents(self._git, part.inside(tree), of_part, scratch)
                inner = [(part.git_dir_in(tree), part.directory_in(tree)) for part in files if part.path]
                contents = await prevent_racy_index(self._git, tree, inner)
                for part in files:
                    await keep_for_agents(self._git, part.inside(tree))
                write_notes(building, notes)
                await reserve.resize(contents.bytes)
                below = plain if self._stacks else None
                self._cache.put(building, path, (contents.bytes, contents.inodes), below, plain.borrows)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def _write(self, part: _Part, tree: Path, files: Mapping[bytes, LfsFile]) -> None:
        for path, file in files.items():
            source = self._objects.find(part.remote.repository_id, file.pointer)
            if source is None:
                raise GitError("lfs", f"the object {file.pointer.oid} is here no more")
            target = part.directory_in(tree) / os.fsdecode(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            mode = 0o777 if file.is_executable else 0o666  # less what the umask takes, as git does
            with source.open("rb") as read, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT, mode), "wb") as written:
                shutil.copyfileobj(read, written, 1 << 20)


def _begin_layer(plain: CachedBase, tree: Path) -> None:
    """Give a layer a complete `.git` of its own: that of the base below, without what hides the ones below that."""
    shutil.copytree(plain.layers[0] / ".git", tree / ".git", symlinks=True, ignore=_whiteouts)
    hide_git_below(tree, plain.layers)


def _copy(plain: CachedBase, tree: Path) -> None:
    shutil.copytree(plain.layers[0], tree, symlinks=True)


def _whiteouts(directory: str, names: Iterable[str]) -> set[str]:
    return {name for name in names if stat.S_ISCHR(Path(directory, name).lstat().st_mode)}


def _is_pointer(pointer: Pointer, path: Path) -> bool:
    return pointer.size <= POINTER_BYTES and parse_pointer(path.read_bytes()) is not None


def _key(missing: Mapping[bytes, str]) -> str:
    """Return what tells a tree from one that lacks other files; nothing for one that lacks none."""
    return hashlib.sha256(b"\0".join(sorted(missing))).hexdigest()[:16] if missing else ""
