"""Where a cell's services store files below the data directory; spelled out here so that a test notices a change."""

from pathlib import Path

from services.common.home import Home


def workspace_trees(home: Home) -> Path:
    """One directory for each workspace, named by its id."""
    return home.root / "workspace" / "trees"


def git_directory(home: Home) -> Path:
    """Mirrors, base trees, results."""
    return home.root / "git"


def execution_directory(home: Home) -> Path:
    """The execution service's database and runs."""
    return home.root / "execution"


def execution_runs(home: Home) -> Path:
    """One directory for each execution, named by its id."""
    return execution_directory(home) / "runs"
