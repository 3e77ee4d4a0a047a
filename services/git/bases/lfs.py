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
from services.git.bases.lfs_choice import LfsLimits, choose, left_out
from services.git.bases.lfs_files import LfsFile, find_lfs_files, keep_for_agents, take_contents
from services.git.bases.notes import read_notes, with_pointers, write_notes
from services.git.bases.racy_index import prevent_racy_index
from services.git.disk.base_cache import BaseCache, CachedBase
from services.git.disk.budget import Allowance, DiskBudget
from services.git.gitcmd import Git, GitError
from services.git.model import Caveat, Progress, ProgressListener, Remote
from services.git.paths import GitPaths
from services.git.pointers import POINTER_BYTES, Pointer, parse_pointer
from services.git.single_flight import SingleFlight
from services.git.stores.lfs_objects import LfsObjects
from services.git.stores.lfs_transfer import LfsTransfer

_REMEMBERED: Final = 64
_UNUSUAL: Final = "its pointer is not as Git LFS writes them, so that git would find the file changed"
_OF_SUBMODULES: Final = "of submodules, they are not fetched"


@dataclass(frozen=True, slots=True)
class _Found:
    """The pointers of a base, the paths that .gitattributes gives to Git LFS, and those that .lfsconfig leaves out."""

    files: Mapping[bytes, LfsFile]
    paths: frozenset[bytes]
    left_out: Mapping[bytes, str]


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
        self, plain: CachedBase, remote: Remote, report: ProgressListener
    ) -> tuple[CachedBase, tuple[Caveat, ...]]:
        """Return a base with the contents of Git LFS that could be had, and what it lacks. The caller holds `plain`.

        Raises:
            FailedPrecondition: CLONE_FAILED, when git cannot make it.
            Exhausted: DISK_FULL.
        """
        notes = await asyncio.to_thread(read_notes, plain.path)
        if not any(note.kind is CaveatKind.LFS_POINTERS for note in notes):
            return plain, notes
        try:
            found = await self._find(plain)
            missing = await self._get(remote, found, report)
            had = {path: file for path, file in found.files.items() if path not in missing}
            notes = with_pointers(notes, found.paths, missing, _OF_SUBMODULES)
            if not had:
                return plain, notes
            path = plain.path.with_name(f"{plain.path.name}-lfs{_key(missing)}")
            return await self._in_place(path, plain, had, notes, report), notes
        except GitError as error:
            raise failures.clone_failed(remote.repository_id, error) from error

    async def _find(self, plain: CachedBase) -> _Found:
        if plain.path in self._found:
            return self._found[plain.path]
        scratch = self._paths.scratch()
        try:
            git_dir = plain.layers[0] / ".git"
            files, paths = await find_lfs_files(self._git, git_dir, scratch)
            found = _Found(files, paths, await left_out(self._git, git_dir, files, scratch))
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        self._found[plain.path] = found
        if len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)
        return found

    async def _get(self, remote: Remote, found: _Found, report: ProgressListener) -> dict[bytes, str]:
        """Get the contents that are not here; return why those cannot be had that are missing, by path."""
        chosen = {path: file for path, file in found.files.items() if path not in found.left_out}
        refused, wanted = choose(chosen.values(), self._limits)
        here = await asyncio.to_thread(self._here, remote.repository_id, wanted)
        missing: dict[Pointer, str] = {}
        if wanted - here:
            report(Progress("Fetching Git LFS objects"))
            missing = await self._fetch(remote, wanted)
        here = await asyncio.to_thread(self._contents, remote.repository_id, wanted - missing.keys())
        unusable = dict.fromkeys(wanted - missing.keys() - here, "its content is a pointer itself")
        reasons = refused | missing | unusable
        return {
            **found.left_out,
            **{
                path: reasons.get(file.pointer, _UNUSUAL)
                for path, file in chosen.items()
                if file.pointer in reasons or not file.is_usual
            },
        }

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
        files: Mapping[bytes, LfsFile],
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

    async def _build(
        self, path: Path, plain: CachedBase, files: Mapping[bytes, LfsFile], notes: tuple[Caveat, ...]
    ) -> None:
        scratch = self._paths.scratch()
        building = scratch / "base"
        tree = building / "tree"
        expected = sum(file.pointer.size for file in files.values()) + (0 if self._stacks else plain.bytes)
        try:
            async with self._budget.reserve(expected) as reserve:
                await asyncio.to_thread(_begin_layer if self._stacks else _copy, plain, tree)
                await asyncio.to_thread(self._write, plain.repository_id, tree, files)
                await take_contents(self._git, tree, files, scratch)
                contents = await prevent_racy_index(self._git, tree)
                await keep_for_agents(self._git, tree)
                write_notes(building, notes)
                await reserve.resize(contents.bytes)
                below = plain if self._stacks else None
                self._cache.put(building, path, (contents.bytes, contents.inodes), below, plain.borrows)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def _write(self, repository_id: str, tree: Path, files: Mapping[bytes, LfsFile]) -> None:
        for path, file in files.items():
            source = self._objects.find(repository_id, file.pointer)
            if source is None:
                raise GitError("lfs", f"the object {file.pointer.oid} is here no more")
            target = tree / os.fsdecode(path)
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
