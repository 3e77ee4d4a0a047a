"""Writes the files that a workspace starts with, in addition to its base."""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from services.workspace.drivers import DriverError
from services.workspace.drivers.disk import disk_full
from services.workspace.model import File

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_files(top: Path, files: Iterable[File], owner: int | None = None) -> None:
    """Write files into a tree that nobody else writes to yet. What is in their way is removed; links are not followed.

    They belong to the uid `owner`, or (None) to us.

    Raises Exhausted(DISK_FULL), DriverError.
    """
    try:
        for file in files:
            directory = top
            for part in file.path.parts[:-1]:
                directory = directory / part
                if _make_directory(directory):
                    _give(directory, owner)
            _write(directory / file.path.name, file.content)
            _give(directory / file.path.name, owner)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise disk_full(top) from error
        raise DriverError(f"cannot write {error.filename}: {error.strerror}") from error


def _make_directory(path: Path) -> bool:
    """Return whether it was made."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        if stat.S_ISDIR(path.lstat().st_mode):
            return False
        path.unlink()
        path.mkdir(mode=0o755)
    return True


def _give(path: Path, owner: int | None) -> None:
    if owner is not None:
        os.chown(path, owner, owner, follow_symlinks=False)


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # a file of the base may be there; a directory is an error
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
