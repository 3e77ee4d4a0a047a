"""Branches that jobs often start from are prepared ahead, and no other."""

from services.common.errors import FailedPrecondition
from services.git.bases.warming import BranchWarmer
from services.git.model import Remote, StartPoint
from tests.kit.gitservice import GitParts
from tests.kit.repos import Repo
from tests.unit.git.conftest import push


async def test_a_branch_that_jobs_often_start_from_is_prepared_ahead(
    parts: GitParts, remote: Remote, upstream: Repo, work: Repo
) -> None:
    for _ in range(3):
        await parts.prepare(remote)
    commit = push(work, upstream, 1)
    await parts.manager.warmer.warm()
    made = parts.git.ran["checkout"]
    assert (await parts.prepare(remote, StartPoint(commit.encode()))).commit_id == commit
    assert parts.git.ran["checkout"] == made


async def test_only_what_is_asked_for_often_and_without_a_token_is_warmed() -> None:
    warmed: list[bytes] = []

    async def prepare(_: Remote, branch: bytes) -> None:
        warmed.append(branch)

    warming = BranchWarmer(prepare, 0)
    for _ in range(3):
        warming.note(Remote("repo-1", "https://a/b"), b"often")
        warming.note(Remote("repo-2", "https://a/c", "token"), b"secret")
    warming.note(Remote("repo-1", "https://a/b"), b"seldom")
    await warming.warm()
    assert warmed == [b"often"]


async def test_a_remote_that_fails_is_left_alone_for_longer_each_time() -> None:
    tried = 0

    async def prepare(_: Remote, branch: bytes) -> None:
        nonlocal tried
        tried += 1
        raise FailedPrecondition("CLONE_FAILED", "gone", "repo-1")

    warming = BranchWarmer(prepare, 0)
    for _ in range(3):
        warming.note(Remote("repo-1", "https://a/b"), b"main")
    for _ in range(15):
        await warming.warm()
    assert tried == 4  # after 1, 2 and 4 rounds of rest
