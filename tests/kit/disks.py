"""Disks that are small enough to be filled."""

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk that is small enough to fill")


@contextlib.contextmanager
def small_disk(directory: Path, *, size: str = "1m", inodes: int = 0) -> Iterator[Path]:
    """Mount a disk of `size` at a directory, with so many inodes (0: as many as fit)."""
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0700" + (f",nr_inodes={inodes}" if inodes else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> Path:
    """Use up all bytes of a disk; return the file to remove for room."""
    ballast = directory / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return ballast


def make_room(ballast: Path) -> None:
    """Remove what `fill` or `use_up_inodes` has returned."""
    shutil.rmtree(ballast) if ballast.is_dir() else ballast.unlink()


def use_up_inodes(directory: Path) -> Path:
    """Use up all inodes of a disk; return the directory to remove for room."""
    ballast = directory / "ballast.d"
    ballast.mkdir()
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (ballast / str(number)).touch()
    return ballast
