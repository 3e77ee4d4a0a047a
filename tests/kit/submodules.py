"""Repositories that have others as submodules, beside each other as on one server."""

from pathlib import Path

from tests.kit.repos import Repo


def library(place: Path, name: str) -> Repo:
    """Make a repository with a file of its name."""
    repo = Repo.sample(place / name)
    repo.commit(name, {name: f"this is {name}\n"})
    return repo


def link(repo: Repo, path: str, url: str, commit_id: str, name: str = "") -> str:
    """Commit a link to a commit of another repository; return the id of the new commit."""
    section = f"submodule.{name or path}"
    repo.git("config", "--file=.gitmodules", f"{section}.path", path)
    repo.git("config", "--file=.gitmodules", f"{section}.url", url)
    repo.git("add", ".gitmodules")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit_id},{path}")
    (repo.path / path).mkdir(parents=True, exist_ok=True)
    repo.git("commit", "--quiet", f"--message=link {path}")
    return repo.head()
