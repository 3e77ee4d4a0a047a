"""A remote without a commit is worked on: the result begins its history, and is all of it."""

from pathlib import Path

import pytest

from services.common.errors import NotFound
from services.git.empty import EMPTY_COMMIT_ID
from services.git.model import Base, Remote, SnapshotSpec, StartPoint
from tests.kit.gitservice import GitParts, LayeredWorkspace
from tests.kit.repos import Repo

FIRST, BRANCH = "git checkout --quiet -b first", b"work"
# What an agent does, and the subjects of what is on the branch afterwards, the newest first.
AGENTS = {
    "nothing": ("true", []),
    "a-directory": ("mkdir only", []),
    "a-file": ("echo x > made", ["the work"]),
    "its-own-commit": ("echo x > made; git add .; git commit -qm own", ["own"]),
    "two-and-more": (
        "echo x > a; git add .; git commit -qm one; echo y > b; git add .; git commit -qm two; echo z > made",
        ["the work", "two", "one"],
    ),
    "another-branch": (f"{FIRST}; echo x > made; git add .; git commit -qm own; echo y > more", ["the work", "own"]),
    "amended": ("echo x > made; git add .; git commit -qm a; git commit -q --amend -m b", ["b"]),
    "no-repository": ("rm -rf .git; echo x > made", ["the work"]),
    "a-new-repository": ("rm -rf .git; git init -q; echo x > made; git add .; git commit -qm new", ["new"]),
}


@pytest.fixture
def upstream(tmp_path: Path) -> Repo:
    path = tmp_path / "remote.git"
    path.mkdir()
    repo = Repo(path)
    repo.git("init", "--quiet", "--bare", "--initial-branch=trunk")
    return repo


async def begun(parts: GitParts, base: Base) -> LayeredWorkspace:
    workspace = await parts.layered(base, mounted=False)
    await parts.manager.create_branch(workspace.tree, BRANCH, base.head_commit_id)
    return workspace


@pytest.mark.parametrize(
    "done", [pytest.param(each, marks=() if each == "two-and-more" else pytest.mark.slow) for each in AGENTS]
)
async def test_what_is_made_of_an_empty_repository_is_its_first_history(
    parts: GitParts, remote: Remote, upstream: Repo, done: str
) -> None:
    script, subjects = AGENTS[done]
    base = await parts.prepare(remote)
    assert (base.commit_id, base.head_commit_id, base.branch, base.caveats) == (EMPTY_COMMIT_ID,) * 2 + (b"", ())
    await parts.manager.check_push(remote, base.commit_id, BRANCH, ())
    workspace = await begun(parts, base)
    status = "git symbolic-ref HEAD; git status --porcelain=v2 --branch"
    assert (await workspace.agent(status)).splitlines() == [
        "refs/heads/work",
        "# branch.oid (initial)",
        "# branch.head work",
    ]
    await workspace.agent(script)
    taken = await parts.manager.take_result("repo-1", "exec-1", workspace.take_spec())
    again = await parts.manager.take_result("repo-1", "exec-1", workspace.take_spec())
    assert (taken.commit_id, taken.changed) == (again.commit_id, bool(subjects))
    assert taken.agent_commits == len([each for each in subjects if each != "the work"])
    if not subjects:
        assert taken.commit_id == EMPTY_COMMIT_ID
        return
    files = [each.path for each in await parts.manager.changed_files("repo-1", base.commit_id, taken.commit_id)]
    assert b"made" in files
    assert files == [
        each.path for each in await parts.manager.changed_files("repo-1", base.commit_id, taken.commit_id, ("**",))
    ]
    checked = await parts.prepare(remote, StartPoint(result_commit_id=taken.commit_id))
    assert (checked.layers[0] / "made").is_file()
    await parts.manager.push(remote, taken.commit_id, BRANCH, "")
    assert upstream.git("log", "--format=%s", "work").splitlines() == subjects
    assert upstream.git("ls-tree", "-r", "--name-only", "work").splitlines() == [each.decode() for each in files]
    assert (await parts.prepare(remote, StartPoint(BRANCH))).commit_id == taken.commit_id


@pytest.mark.slow
async def test_a_snapshot_of_work_on_nothing_is_gone_on_with(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    base = await parts.prepare(remote)
    workspace = await begun(parts, base)
    await workspace.agent("echo x > made")
    spec = SnapshotSpec("snap-1", "repo-1", workspace.tree, base.commit_id, "why")
    assert (await parts.manager.snapshot_tree(spec)).commit_id != EMPTY_COMMIT_ID
    # Meanwhile somebody else pushes a first commit: what was begun from nothing goes on from nothing.
    Repo.sample(Path(upstream.path).parent / "else").git("push", "--quiet", str(upstream.path), "main")
    from_snapshot = await parts.prepare(remote, StartPoint(snapshot_id="snap-1"))
    assert (from_snapshot.commit_id, from_snapshot.head_commit_id) == (EMPTY_COMMIT_ID, EMPTY_COMMIT_ID)
    workspace = await begun(parts, from_snapshot)
    await workspace.agent("git commit -qm second")
    taken = await parts.manager.take_result("repo-1", "exec-2", workspace.take_spec())
    await parts.manager.push(remote, taken.commit_id, BRANCH, "")
    assert upstream.git("log", "--format=%s", "work").splitlines() == ["second"]
    kept = await parts.prepare(remote, StartPoint(base.commit_id.encode()))
    assert kept.commit_id == EMPTY_COMMIT_ID  # where a result that is pushed later starts again


async def test_an_empty_repository_has_no_revision_by_any_name(parts: GitParts, remote: Remote) -> None:
    for revision in (b"main", b"v1", b"refs/heads/trunk", b"refs/pull/1/head", b"0" * 40, b"abcdef1"):
        with pytest.raises(NotFound, match="the repository has no commit yet"):
            await parts.prepare(remote, StartPoint(revision))


@pytest.mark.slow
async def test_a_remote_that_has_lost_its_commits_or_has_none_under_its_head_is_not_taken_for_what_it_was(
    parts: GitParts, remote: Remote, upstream: Repo
) -> None:
    assert (await parts.prepare(remote)).commit_id == EMPTY_COMMIT_ID
    first = Repo.sample(Path(upstream.path).parent / "work").bare_clone(Path(upstream.path).parent / "other.git")
    first.git("push", "--quiet", str(upstream.path), "main:trunk")
    assert (await parts.prepare(remote)).commit_id == first.head("main")
    upstream.git("branch", "-m", "trunk", "elsewhere")  # HEAD goes along
    upstream.git("symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(NotFound, match=r"'HEAD' does not exist$"):  # there are commits, and none that is its default
        await parts.prepare(remote)
    upstream.git("update-ref", "-d", "refs/heads/elsewhere")
    assert (await parts.prepare(remote)).commit_id == EMPTY_COMMIT_ID
