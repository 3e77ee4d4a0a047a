"""Checks submodules out into a tree that git has just filled, with repositories below `.git/modules`, as git does."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from services.git.bases.found_submodules import Submodule
from services.git.gitcmd import Command, Git, Invocation
from services.git.paths import GitPaths

_CLONE = ("--quiet", "--shared", "--no-checkout", "--template=", "--no-recurse-submodules")


def directories(tree: Path, submodules: Iterable[Submodule]) -> list[tuple[Path, Path]]:
    """Return the git directories and the trees of submodules in a tree."""
    return [(tree / ".git" / each.git_dir, tree / each.directory) for each in submodules]


async def configure(git: Git, tree: Path, submodules: Iterable[Submodule]) -> None:
    """Make submodules known to the repositories that they are in, as `git submodule init` does."""
    for each in submodules:
        section = f"submodule.{each.name}"
        settings = {f"{section}.url": each.url, f"{section}.active": "true"}
        await _set(git, tree / ".git" / each.within / "config", settings)


async def check_out(
    git: Git, paths: GitPaths, tree: Path, submodules: Iterable[Submodule], config: Mapping[str, str]
) -> None:
    """Fill the directories of submodules, outer ones first. `config` is for each of their repositories.

    Raises:
        GitError: git cannot.
    """
    for each in submodules:
        git_dir, directory = tree / ".git" / each.git_dir, tree / each.directory
        mirror = paths.mirror(each.mirror_id)
        await git.run(Command("clone", _CLONE, (str(mirror), str(directory))), Invocation(protocol="file"))
        git_dir.parent.mkdir(parents=True, exist_ok=True)
        (directory / ".git").rename(git_dir)
        (directory / ".git").write_text(f"gitdir: {_way(directory, git_dir)}\n")
        own = {"core.worktree": _way(git_dir, directory), "remote.origin.url": each.url}
        await _set(git, git_dir / "config", {**own, **config})
        await configure(git, tree, (each,))
        inside = Invocation(git_dir=git_dir, cwd=directory, timeout_seconds=1800)
        await git.run(Command("checkout", ("--quiet", "--detach"), (each.commit_id,)), inside)


def _way(start: Path, end: Path) -> str:
    """Return the relative path from one directory to another: wherever the tree is mounted, it holds."""
    return os.path.relpath(end, start)


async def _set(git: Git, file: Path, settings: Mapping[str, str]) -> None:
    for key, value in settings.items():
        await git.run(Command("config", (f"--file={file}",), (key, value)))
