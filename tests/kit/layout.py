"""Where a cell's services keep their files below the data directory: written out, so that a test notices a move."""

from pathlib import Path

from services.common.settings import Home


def workspace_trees(home: Home) -> Path:
    """One directory a workspace, by its id."""
    return home.root / "workspace" / "trees"


def git_directory(home: Home) -> Path:
    """Mirrors, base trees, results."""
    return home.root / "git"


def execution_directory(home: Home) -> Path:
    """The execution service's database and runs."""
    return home.root / "execution"


def execution_runs(home: Home) -> Path:
    """One directory an execution, by its id."""
    return execution_directory(home) / "runs"
