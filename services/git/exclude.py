"""What lies in a working tree and is Boatyard's, not the repository's: `.boatyard`, at the top."""

from pathlib import Path
from typing import Final

OURS: Final = b"/.boatyard"
"""A pattern of git's: input for the agent, and what the agent asks."""


def leave_ours_out(git_dir: Path) -> None:
    """Have git ignore it, in a git directory that is being made. What a commit has of it stays tracked."""
    info = git_dir / "info"
    info.mkdir(exist_ok=True)
    (info / "exclude").write_bytes(OURS + b"\n")
