"""Keeps `.boatyard`, at the top of a working tree, out of commits: it is ours, not the repository's."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

OURS: Final = b".boatyard"
PATTERN: Final = b"/" + OURS
"""A gitignore pattern. The directory holds the agent's input and its questions."""


def exclude_boatyard(git_dir: Path, leave_out: Iterable[str] = ()) -> None:
    """Make git ignore it, and these patterns, in a new git directory. What a commit already has stays tracked."""
    info = git_dir / "info"
    info.mkdir(exist_ok=True)
    patterns = (*(pattern.encode() for pattern in leave_out), PATTERN)
    (info / "exclude").write_bytes(b"".join(pattern + b"\n" for pattern in patterns))
