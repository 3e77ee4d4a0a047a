"""What lies in a working tree and is Boatyard's, not the repository's: `.boatyard`, at the top."""

from pathlib import Path
from typing import Final

PATTERN: Final = b"/.boatyard"
"""A pattern of git's: input for the agent, and what the agent asks."""


def exclude_boatyard(git_dir: Path) -> None:
    """Have git ignore it, in a git directory that is being made. What a commit has of it stays tracked."""
    info = git_dir / "info"
    info.mkdir(exist_ok=True)
    (info / "exclude").write_bytes(PATTERN + b"\n")
