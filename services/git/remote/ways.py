"""Opens a directory by its path, one name after the other, and asks of each who may change what it leads to.

What has been judged is open then, so that no name that changes meanwhile leads anywhere else.
"""

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOST_LINKS: Final = 40  # as the kernel
_ACL: Final = "system.posix_acl_access"
_NOBODY: Final = Path("/proc/sys/kernel/overflowuid")


class ForeignWayError(Exception):
    """A path leads through a directory or a symbolic link that other users may change."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}")
        self.path = path
        self.problem = problem


def open_own_directory(path: Path) -> int:
    """Open a directory at an absolute path on which nobody leads us but our own user and root. The caller closes it.

    Raises ForeignWayError, and OSError when there is none, or something else.
    """
    todo, links = list(reversed(path.parts[1:])), 0
    with _looking("/") as root, _looking("/") as here:
        while todo:
            name = todo.pop()
            with _looking(name, here) as found:
                _check_step(here, name, os.fstat(found))
                if not stat.S_ISLNK(os.fstat(found).st_mode):
                    os.dup2(found, here, inheritable=False)
                    continue
                target = Path(os.readlink("", dir_fd=found))
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            if target.is_absolute():
                os.dup2(root, here, inheritable=False)
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)


def changeable(directory: str, status: os.stat_result) -> str | None:
    """Return how others may change the entries of a directory, None when they may not."""
    if status.st_uid not in _trusted():
        return f"belongs to {user_name(status.st_uid)}, who may put anything there"
    if status.st_mode & stat.S_IWOTH:
        return "may be changed by every user of the machine (chmod o-w)"
    if status.st_mode & stat.S_IWGRP and not _is_our_group_alone(status.st_gid, directory):
        return f"may be changed by the group {_group_name(status.st_gid)} (chmod g-w)"
    return None


def user_name(uid: int) -> str:
    """Return a user's name for people."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"


@contextlib.contextmanager
def _looking(name: str, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_step(directory: int, name: str, entry: os.stat_result) -> None:
    """Check that nobody else can put another entry in the place of this one."""
    status = os.fstat(directory)
    problem = changeable(f"/proc/self/fd/{directory}", status)
    is_own = entry.st_uid in _trusted()
    if problem and is_own and status.st_mode & stat.S_ISVTX and status.st_uid in _trusted():
        problem = None  # the sticky bit, as /tmp has it: an entry is its owner's and the directory's owner's
    if problem:
        raise ForeignWayError(_path(directory), problem)
    if stat.S_ISLNK(entry.st_mode) and not is_own:
        raise ForeignWayError(_path(directory) / name, f"is a symbolic link of {user_name(entry.st_uid)}")


def _trusted() -> set[int]:
    """Return who may lead us: our user and root, which is somebody else's number where / is another machine's.

    In a user namespace that does not have root, its number is that of everybody whom the namespace does not have.
    """
    return {0, os.geteuid(), Path("/").stat().st_uid} - ({int(_NOBODY.read_text())} - {os.geteuid()})


def _is_our_group_alone(gid: int, directory: str) -> bool:
    """True for the group that some systems give each user: it has the user's name, and nobody else in it."""
    with contextlib.suppress(KeyError, OSError):
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        is_private = group.gr_name == user.pw_name and gid == user.pw_gid and not {*group.gr_mem} - {user.pw_name}
        return is_private and _ACL not in os.listxattr(directory)
    return False


def _group_name(gid: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def _path(directory: int) -> Path:
    return Path(f"/proc/self/fd/{directory}").readlink()
