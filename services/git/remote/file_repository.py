"""Repositories on this machine: of which directories one is made, where those may lie, and whose they must be.

A repository leads elsewhere by a `.git` file, by `commondir` in a linked worktree, and by alternates. Each of these is
read from a directory that is open already, so what is judged is what is used, whatever happens to its path meanwhile.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git import failures
from services.git.gitcmd import GitError
from services.git.remote import ways

OTHERS: Final = "BOATYARD_GIT_OTHERS_FILE_ROOTS"
# The parts of a repository that lead git on: what lies beside them, as hooks do, it does not read.
_LEADING: Final = (
    *("HEAD", "config", "config.worktree", "packed-refs", "shallow", "refs", "reftable", "objects"),
    *("info", "logs", "worktrees"),
)
_MOST_POINTER_BYTES: Final = 64 << 10
_MOST_LENDERS: Final = 16


class NoRepositoryError(GitError):
    """There is no repository at a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("ls-remote", f"'{path}' does not appear to be a git repository")


@dataclass(frozen=True, slots=True)
class FileRoots:
    """Where repositories on this machine may lie: our own user's below `own`, anybody's below `others`.

    None may lie in `home`, our data directory. All paths are resolved.
    """

    own: tuple[Path, ...]
    others: tuple[Path, ...]
    home: Path

    def complaint(self, path: Path) -> str | None:
        """Return why no repository may lie at this path, None when one may."""
        resolved = _real(path)
        if resolved.is_relative_to(self.home):
            return "must not be inside Boatyard's own data directory"
        if not _is_below(resolved, (*self.own, *self.others)):
            return "is not under the configured roots for file remotes (BOATYARD_GIT_FILE_ROOTS)"
        return None

    def are_others(self, path: Path) -> bool:
        """True when the repository at this resolved path may be anybody's."""
        return _is_below(path, self.others)


@dataclass(frozen=True, slots=True)
class Directory:
    """An open directory: its real path, and a descriptor that finds it whatever becomes of that path."""

    path: Path
    descriptor: int


@dataclass(frozen=True, slots=True)
class FileRepository:
    """A repository: the directory that git is given, those that it is made of, and those of the objects it borrows."""

    git_dir: Path
    parts: tuple[Directory, ...]
    borrowed: tuple[Directory, ...]


@contextlib.contextmanager
def opened(path: Path, roots: FileRoots, *, sandboxed: bool = True) -> Iterator[FileRepository]:
    """Find the repository at a path, as git would, and keep its directories open in this context. Blocks.

    Without a sandbox nobody else may change anything in it: what git is led to later must be what is judged now.

    Raises:
        NoRepositoryError: there is none.
        FailedPrecondition: REMOTE_NOT_ALLOWED, it or what it leads to is another user's, or lies where none may.
    """
    with contextlib.ExitStack() as stack:
        try:
            repository = _Search(path, roots, stack, sandboxed=sandboxed).repository()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NoRepositoryError(path) from error
        except OSError as error:
            raise failures.remote_not_allowed(path, f"cannot be read: {error}") from error
        yield repository


class _Search:
    """One search for the repository at a path. The directories that it opens are closed with `stack`."""

    def __init__(self, path: Path, roots: FileRoots, stack: contextlib.ExitStack, *, sandboxed: bool) -> None:
        self._path = path
        self._roots = roots
        self._stack = stack
        self._sandboxed = sandboxed
        # By all of the path: where others may make links, one of theirs must not make what it leads to ours.
        self._anybodys = any(roots.are_others(_real(part)) for part in (path, *path.parents))

    def repository(self) -> FileRepository:
        git_dir = self._git_dir(self._open(self._path))
        pointer = self._pointer(git_dir, "commondir")
        common = self._open(git_dir.path / pointer) if pointer else git_dir
        if not _exists(git_dir, "HEAD") or not _exists(common, "objects") or not _exists(common, "refs"):
            raise NoRepositoryError(self._path)
        parts = (common,) if git_dir.path.is_relative_to(common.path) else (common, git_dir)
        for part in dict.fromkeys((common, git_dir)):
            for name in _LEADING:
                self._check(part, name)
        return FileRepository(git_dir.path, parts, tuple(self._lenders(common)))

    def _git_dir(self, top: Directory) -> Directory:
        """Return the directory that `.git` is, or that it names; without one the repository is bare."""
        if not _exists(top, ".git"):
            return top
        pointer = self._pointer(top, ".git").removeprefix("gitdir:").strip()
        return self._open(top.path / (pointer or ".git"))

    def _lenders(self, common: Directory) -> Iterator[Directory]:
        """Yield the directories of objects that are borrowed, also by those who lend."""
        todo = [self._open(common.path / "objects")]
        seen = {todo[0].path}
        while todo:
            objects = todo.pop()
            for line in self._pointer(objects, "info/alternates").splitlines():
                lender = self._open(objects.path / line) if line and not line.startswith("#") else objects
                if lender.path in seen:
                    continue
                if len(seen) > _MOST_LENDERS:
                    raise failures.remote_not_allowed(lender.path, f"is one of more than {_MOST_LENDERS} lenders")
                self._check(lender, ".")
                seen.add(lender.path)
                todo.append(lender)
                yield lender

    def _open(self, path: Path) -> Directory:
        """Open a directory, and judge where it really lies and whose it is."""
        descriptor = self._descriptor(path)
        self._stack.callback(os.close, descriptor)
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
        if complaint := self._roots.complaint(real):
            raise failures.remote_not_allowed(real, complaint)
        if self._anybodys and not self._roots.are_others(real):
            raise failures.remote_not_allowed(real, f"is not under {OTHERS}, as the repository is that leads there")
        status = os.fstat(descriptor)
        self._check_owner(real, status)
        self._check_closed(real, f"/proc/self/fd/{descriptor}", status)
        return Directory(real, descriptor)

    def _descriptor(self, path: Path) -> int:
        if self._anybodys:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return ways.open_own_directory(path)
        except ways.ForeignWayError as error:
            raise failures.remote_not_allowed(error.path, error.problem) from error

    def _pointer(self, directory: Directory, name: str) -> str:
        """Return what a small file says; nothing if it does not exist, or is a directory."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=directory.descriptor)
        except FileNotFoundError:
            return ""
        except OSError as error:
            if error.errno == errno.ELOOP and name == ".git":  # what it leads to is judged when it is opened
                return ""
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return ""
            self._check_owner(directory.path, status, name)
            return os.fsdecode(os.read(descriptor, _MOST_POINTER_BYTES)).rstrip("\n")
        finally:
            os.close(descriptor)

    def _check(self, directory: Directory, name: str) -> None:
        """Check that all below `name` is our own user's, and that no symbolic link in there leads out."""
        if self._anybodys:
            return
        # By the descriptor: the path may lead elsewhere by now.
        start = f"/proc/self/fd/{directory.descriptor}/"
        for path, status in _walk(start + name):
            self._check_owner(directory.path, status, path.removeprefix(start))
            if stat.S_ISDIR(status.st_mode):
                self._check_closed(directory.path / path.removeprefix(start), path, status)
            if stat.S_ISLNK(status.st_mode) and not _real(Path(path)).is_relative_to(directory.path):
                shown = directory.path / path.removeprefix(start)
                raise failures.remote_not_allowed(shown, "is a symbolic link that leads out of the repository")

    def _check_owner(self, directory: Path, status: os.stat_result, name: str = "") -> None:
        if not self._anybodys and status.st_uid != os.geteuid():
            message = (
                f"belongs to {ways.user_name(status.st_uid)}, and this cell runs as {ways.user_name(os.geteuid())}"
            )
            raise failures.remote_not_allowed(directory / name, message)

    def _check_closed(self, shown: Path, path: str, status: os.stat_result) -> None:
        if not self._sandboxed and (problem := ways.changeable(path, status)):
            raise failures.remote_not_allowed(shown, f"{problem}, and git has no sandbox here")


def _exists(directory: Directory, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _walk(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield a path, and all that is below it. What git removes meanwhile, or never made, is left out."""
    todo = [path]
    while todo:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path := todo.pop())
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(path) as entries:
                    todo += [entry.path for entry in entries]


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError where links lead in a circle


def _is_below(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(root) for root in roots)
