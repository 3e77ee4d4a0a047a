"""The code of an earlier version, checked out of the repository's history, to be run beside the present one."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.kit.cell import Cell
from tests.kit.contract import ROOT

COMMIT_FILE = ROOT / "tests" / "e2e" / "upgrade_from.txt"
"""The commit of the version from which upgrades are promised; renewed with each release."""


def earlier_code(directory: Path) -> Path:
    """Put the earlier version's services and contract into `directory`, where they know their version; return it.

    Skips the test where the history does not reach back to that version: in a shallow clone, or an archive of the
    sources.
    """
    commit = COMMIT_FILE.read_text().strip()
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", ROOT)
    archiving = [*git, "archive", commit, "services", "protos", "pyproject.toml"]
    archive = subprocess.run(archiving, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(
            f"upgrades are promised from {commit} ({COMMIT_FILE.name}), which is not in the history here: "
            f"`git fetch --unshallow`, or `git fetch origin {commit}`\n{archive.stderr.decode()}"
        )
    directory.mkdir()
    subprocess.run(["tar", "--extract", "--directory", directory], input=archive.stdout, check=True)
    about = directory / f"boatyard-{version_of(directory)}.dist-info"  # found before that of the present code
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: boatyard\nVersion: {version_of(directory)}\n")
    return directory


def version_of(code: Path) -> str:
    """Return the version of a checkout."""
    return str(tomllib.loads((code / "pyproject.toml").read_text())["project"]["version"])


def run_with(cell: Cell, code: Path | None) -> None:
    """Let a cell's commands and services have the code of a checkout from now on; None is the present one."""
    if code is None:
        del cell.environment["PYTHONPATH"]
    else:
        cell.environment["PYTHONPATH"] = f"{code}:{code / 'protos'}"
