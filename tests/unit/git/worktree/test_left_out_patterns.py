"""Patterns of files that nobody wants mean within a directory what they mean at the top: as git itself says."""

import subprocess
from pathlib import Path

import pytest

from services.git.worktree.left_out import within
from tests.kit.repos import Repo

PATTERNS = (
    *(".aider*", "*.log", "tmp/", "lib", "lib/", "in/", "/lib/", "/out", "/lib/out/", "lib/out", "lib/in/x?"),
    *("**/out", "**/in/out", "lib/**", "lib/**/x1", "l*b/i[nm]/out", "*/out", "*/*/x1", "**", "/**/tmp/", "other/out"),
)
FILES = (".aider.x", "a.log", "tmp/f", "out/f", "out/tmp/f", "x1", "d/x1", "d/out", "lib/out", "in/out", "tmp")
DIRECTORIES = ("lib", "lib/in", "other", "d/lib", "in")


def named(place: Path, pattern: str, paths: list[str]) -> set[str]:
    """Return the paths that git ignores for a pattern."""
    exclude = place / "exclude"
    exclude.write_text(f"{pattern}\n")
    command = ["git", "-c", f"core.excludesFile={exclude}", "check-ignore", "--no-index", "-z", "--stdin"]
    stdin = "".join(path + "\0" for path in paths).encode()
    done = subprocess.run(command, cwd=place / "repo", input=stdin, capture_output=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return set(filter(None, done.stdout.decode().split("\0")))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_within_a_directory_they_name_the_same_files(tmp_path: Path, pattern: str) -> None:
    Repo.sample(tmp_path / "repo")
    for directory in DIRECTORIES:
        whole = named(tmp_path, pattern, [f"{directory}/{file}" for file in FILES])
        within_it = "\n".join(within((pattern,), directory.encode()))
        assert {f"{directory}/{file}" for file in named(tmp_path, within_it, list(FILES))} == whole, directory
