"""Keeps `.boatyard`, at the top of a working tree, out of commits: it is ours, not the repository's."""

from pathlib import Path
from typing import Final

PATTERN: Final = b"/.boatyard"
"""A gitignore pattern. The directory holds the agent's input and its questions."""


def exclude_boatyard(git_dir: Path) -> None:
    """Make git ignore it in a new git directory. Files of it that a commit already has stay tracked."""
    info = git_dir / "info"
    info.mkdir(exist_ok=True)
    (info / "exclude").write_bytes(PATTERN + b"\n")
