"""Removes what was built aside, also what an overlay's kernel has closed to its own owner."""

import contextlib
import shutil
from pathlib import Path


def remove(path: Path) -> None:
    """Remove a directory and all in it, as far as that is possible.

    Mounted without root, an overlay leaves a directory without any rights in the place where it works; an ordinary user
    may only remove it after giving himself some.
    """
    shutil.rmtree(path, onerror=_open_up)
    shutil.rmtree(path, ignore_errors=True)


def _open_up(_function: object, name: str, _error: object) -> None:
    with contextlib.suppress(OSError):
        if Path(name).is_dir() and not Path(name).is_symlink():
            Path(name).chmod(0o700)
