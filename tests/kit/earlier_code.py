"""The code of an earlier version, checked out of the repository's history, to be run beside the present one."""

import subprocess
from pathlib import Path

import pytest

from tests.kit.cell import Cell
from tests.kit.contract import ROOT

COMMIT_FILE = ROOT / "tests" / "e2e" / "upgrade_from.txt"
"""The commit of the version from which upgrades are promised; renewed with each release."""


def earlier_code(directory: Path) -> Path:
    """Put the earlier version's services and contract into `directory`; return it.

    Skips the test where there is no history at all, as in an archive of the sources. A clone without that commit fails.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("there is no git history here to take the earlier version from")
    commit = COMMIT_FILE.read_text().strip()
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", commit, "services", "protos"], capture_output=True, check=False
    )
    if archive.returncode:
        pytest.fail(
            f"the clone has no commit {commit}, from which {COMMIT_FILE.name} promises upgrades: "
            f"`git fetch origin {commit}`, or `git fetch --unshallow`\n{archive.stderr.decode()}"
        )
    directory.mkdir()
    subprocess.run(["tar", "--extract", "--directory", directory], input=archive.stdout, check=True)
    return directory


def run_with(cell: Cell, code: Path | None) -> None:
    """Let a cell's commands and services have the code of a checkout from now on; None is the present one."""
    if code is None:
        del cell.environment["PYTHONPATH"]
    else:
        cell.environment["PYTHONPATH"] = f"{code}:{code / 'protos'}"
