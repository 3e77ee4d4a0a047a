"""A repository on this machine that somebody names by a path: where its top is, and what of it is not committed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

_OURS: Final = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "Boatyard", "EMAIL": "noreply@boatyard.dev"}.items()
}
_SECONDS: Final = 120.0


def top_of(path: Path) -> Path | None:
    """Return the repository that a directory is in, as git finds it; None if there is none, or no such directory."""
    if not path.is_dir():
        return None
    return next((place for place in (path, *path.parents) if _is_repository(place)), None)


def uncommitted(top: Path) -> int:
    """Return how many paths of a working tree are new or differ from the last commit; 0 if git cannot tell."""
    if not (top / ".git").exists():
        return 0
    try:
        listing = _git(top, "status", "--porcelain", "-z", "--no-renames")
    except click.ClickException:
        return 0
    return listing.count("\0")


def commit_uncommitted(top: Path) -> str:
    """Make a commit of the working tree as it is; return its id, to which nothing in the repository leads.

    Git serves it by its id all the same, and keeps it for two weeks. Neither the index nor HEAD changes. What git
    ignores is left out. Raises ClickException.
    """
    parents = ("-p", "HEAD") if _has_commit(top) else ()
    with tempfile.TemporaryDirectory() as directory:
        index = Path(directory, "index")
        own = top / _git(top, "rev-parse", "--git-path", "index").strip()
        if own.is_file():
            shutil.copy2(own, index)
        variables = _OURS | {"GIT_INDEX_FILE": str(index)}
        _git(top, "add", "--all", variables=variables)
        tree = _git(top, "write-tree", variables=variables).strip()
        message = "What was not committed yet"
        return _git(top, "commit-tree", *parents, "-m", message, tree, variables=variables).strip()


def _is_repository(path: Path) -> bool:
    return os.path.lexists(path / ".git") or ((path / "HEAD").is_file() and (path / "objects").is_dir())


def _has_commit(top: Path) -> bool:
    try:
        _git(top, "rev-parse", "--verify", "HEAD^{commit}")
    except click.ClickException:
        return False
    return True


def _git(top: Path, *words: str, variables: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(top), "-c", "core.fsmonitor=false", *words],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(variables or {})},
            capture_output=True,
            check=True,
            timeout=_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise click.ClickException(f"git {words[0]} in {top}: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise click.ClickException(f"git {words[0]} in {top}: {error}") from error
    return done.stdout.decode("utf-8", "surrogateescape")
