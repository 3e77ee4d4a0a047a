import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.cell import Cell, running_cell

GIT_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{role}_{what}": "test@example.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(directory: Path, *arguments: str) -> str:
    """Run real git as a person would, without the host's configuration."""
    return subprocess.run(
        ["git", *arguments], cwd=directory, env=GIT_ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout.strip()


def let_others_in(directory: Path) -> None:
    """Let every user of the machine list a directory, and come to it."""
    directory.chmod(0o755)
    for parent in directory.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)


class Remote:
    """A bare repository with a little history: what users push to."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "remote.git"
        work = directory / "work"
        work.mkdir()
        git(work, "init", "--quiet", "--initial-branch=main")
        for number in range(3):
            (work / "counter.txt").write_text(f"{number}\n")
            (work / f"file{number}.txt").write_text("line\n" * 10)
            git(work, "add", ".")
            git(work, "commit", "--quiet", "--message", f"Change {number}")
        git(directory, "clone", "--quiet", "--bare", "work", "remote.git")
        self.head = git(self.path, "rev-parse", "main")

    def branches(self) -> list[str]:
        return git(self.path, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()

    def show(self, revision_and_path: str) -> str:
        return git(self.path, "show", revision_and_path)

    def git(self, *arguments: str) -> str:
        return git(self.path, *arguments)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path)


@pytest.fixture
def scratch() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="package")
def cell() -> Iterator[Cell]:
    """One cell for all tests that leave it as they found it."""
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    with running_cell(directory) as running:
        yield running
    shutil.rmtree(directory)
