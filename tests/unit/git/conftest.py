from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.git.model import Base, Remote
from tests.kit.gitservice import GitParts, Workspace, git_parts
from tests.kit.repos import Repo
from tests.kit.served_lfs import Served, served_lfs


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_lfs(tmp_path) as served:
        yield served


@pytest.fixture
def upstream(tmp_path: Path) -> Repo:
    return Repo.sample(tmp_path / "work").bare_clone(tmp_path / "remote.git")


@pytest.fixture
def remote(upstream: Repo) -> Remote:
    return Remote("repo-1", str(upstream.path))


@pytest.fixture
def work(upstream: Repo) -> Repo:
    return Repo(upstream.path.parent / "work")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path / "home", tmp_path) as parts:
        yield parts


@pytest.fixture(scope="session")
def shared_remote(tmp_path_factory: pytest.TempPathFactory) -> Remote:
    place = tmp_path_factory.mktemp("shared-remote")
    return Remote("repo-1", str(Repo.sample(place / "work").bare_clone(place / "remote.git").path))


@pytest.fixture(scope="session")
async def shared_parts(tmp_path_factory: pytest.TempPathFactory, shared_remote: Remote) -> AsyncIterator[GitParts]:
    """For tests that only work on their own working copy: a base takes a second to make."""
    async with git_parts(tmp_path_factory.mktemp("shared-home"), Path(shared_remote.url)) as parts:
        yield parts


@pytest.fixture(scope="session")
async def shared_base(shared_parts: GitParts, shared_remote: Remote) -> Base:
    return await shared_parts.prepare(shared_remote)


@pytest.fixture
def workspace(shared_parts: GitParts, shared_base: Base) -> Workspace:
    """A working copy of the shared base."""
    return shared_parts.workspace(shared_base)


def push(work: Repo, upstream: Repo, number: int) -> str:
    """Push a commit that is so large that git keeps its pack."""
    commit = work.commit(f"number {number}", {f"many/{number}-{name}": f"{number} {name}" for name in range(120)})
    work.git("push", "--quiet", "--force", str(upstream.path), "main")
    return commit
