"""What is done while nobody waits: mirrors are packed anew, and branches that are asked for often are kept warm."""

import pytest

from services.common.errors import FailedPrecondition
from services.git import upkeep
from services.git.model import Remote, Wanted
from services.git.warming import Warming
from tests.kit.gitservice import GitParts
from tests.kit.repos import Repo


@pytest.fixture
def work(upstream: Repo) -> Repo:
    return Repo(upstream.path.parent / "work")


def push(work: Repo, upstream: Repo, number: int) -> str:
    """Push a commit that is so large that git keeps its pack."""
    commit = work.commit(f"number {number}", {f"many/{number}-{name}": f"{number} {name}" for name in range(120)})
    work.git("push", "--quiet", "--force", str(upstream.path), "main")
    return commit


async def test_a_mirror_of_many_packs_is_packed_anew_and_loses_nothing(
    parts: GitParts, remote: Remote, upstream: Repo, work: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_MANY_PACKS", 4)
    for number in range(4):
        lost = push(work, upstream, number)
        base = await parts.prepare(remote)
        if number < 3:
            assert not await parts.manager.upkeep.tend("repo-1")
    work.git("reset", "--quiet", "--hard", "HEAD~1")
    for number in (4, 5):
        push(work, upstream, number)
        await parts.prepare(remote)
    mirror = parts.places.mirror("repo-1")
    before = len(list(mirror.glob("objects/pack/*.pack")))
    assert await parts.manager.upkeep.tend("repo-1")
    assert len(list(mirror.glob("objects/pack/*.pack"))) < before / 2
    assert Repo(mirror).git("config", "extensions.preciousObjects") == "true"
    Repo(mirror).git("fsck", "--no-dangling")
    # No branch leads there any more, and a workspace of it may still be at work.
    assert Repo(mirror).git("cat-file", "-t", lost) == "commit"
    assert Repo(base.layers[0]).git("fsck", "--no-dangling") == ""
    assert list(parts.places.scratch_root.iterdir()) == []
    assert (await parts.prepare(remote)).commit_id == work.head()


async def test_a_branch_that_jobs_often_start_from_is_prepared_ahead(
    parts: GitParts, remote: Remote, upstream: Repo, work: Repo
) -> None:
    for _ in range(3):
        await parts.prepare(remote)
    commit = push(work, upstream, 1)
    await parts.manager.warming.warm()
    made = parts.git.ran["checkout"]
    assert (await parts.prepare(remote, Wanted(commit.encode()))).commit_id == commit
    assert parts.git.ran["checkout"] == made


async def test_only_what_is_asked_for_often_and_without_a_token_is_warmed() -> None:
    warmed: list[bytes] = []

    async def prepare(_: Remote, branch: bytes) -> None:
        warmed.append(branch)

    warming = Warming(prepare, 0)
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

    warming = Warming(prepare, 0)
    for _ in range(3):
        warming.note(Remote("repo-1", "https://a/b"), b"main")
    for _ in range(15):
        await warming.warm()
    assert tried == 4  # after 1, 2 and 4 rounds of rest
