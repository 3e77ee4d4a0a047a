"""Differences between commits: renames found, binaries marked, cut between files and never inside of one."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import NotFound
from services.git.model import ChangedFile, ChangeKind, DiffEnd, Remote, StartPoint
from services.git.stores.diffs import whole_files
from tests.kit.gitservice import GitParts, Workspace
from tests.kit.repos import Repo


async def whole_diff(parts: GitParts, base: str, commit: str, max_bytes: int = 0) -> tuple[bytes, int]:
    pieces = [piece async for piece in parts.manager.diff("repo-1", base, commit, max_bytes)]
    assert isinstance(pieces[-1], DiffEnd)
    return b"".join(piece for piece in pieces if isinstance(piece, bytes)), pieces[-1].omitted_files


@pytest.fixture
async def commits(shared_parts: GitParts, workspace: Workspace) -> tuple[str, str]:
    agent = workspace.agent
    agent.git("mv", "src/main.py", "src/moved.py")
    agent.write(
        {
            "README": None,
            "src/lib.py": "def one():\n    return 2\n",
            "binary": bytes(range(256)),
            "diff --git a/x b/x": "diff --git a/y b/y\n",
            "tab\tand\nline": "1\n",
        }
    )
    (agent.path / "link").symlink_to("src")
    result = await shared_parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    return workspace.base.commit_id, result.commit_id


async def test_the_changed_files(shared_parts: GitParts, commits: tuple[str, str]) -> None:
    assert await shared_parts.manager.changed_files("repo-1", *commits) == [
        ChangedFile(b"README", ChangeKind.DELETED, additions=0, deletions=1),
        ChangedFile(b"binary", ChangeKind.ADDED),
        ChangedFile(b"diff --git a/x b/x", ChangeKind.ADDED, additions=1, deletions=0),
        ChangedFile(b"link", ChangeKind.ADDED, additions=1, deletions=0),
        ChangedFile(b"src/lib.py", ChangeKind.MODIFIED, additions=1, deletions=1),
        ChangedFile(b"src/moved.py", ChangeKind.RENAMED, b"src/main.py", 0, 0),
        ChangedFile(b"tab\tand\nline", ChangeKind.ADDED, additions=1, deletions=0),
    ]


async def named(parts: GitParts, workspace: Workspace, *patterns: str) -> list[tuple[bytes, bytes]]:
    """Take a workspace, and return the paths of the changes that patterns name, with the previous ones."""
    base, result = (
        workspace.base.commit_id,
        await parts.manager.take_result("repo-1", "result-1", workspace.take_spec()),
    )
    changes = await parts.manager.changed_files("repo-1", base, result.commit_id, patterns)
    return [(change.path, change.old_path) for change in changes]


async def test_changes_of_the_paths_that_patterns_name(shared_parts: GitParts, workspace: Workspace) -> None:
    agent = workspace.agent
    agent.git("mv", "src/main.py", "elsewhere.py")
    agent.write({"README": "changed", "SRC/upper.py": "1", "src/lib.py": None, "docs/x": "1"})
    assert await named(shared_parts, workspace, "src", "docs/*.md") == [
        (b"SRC/upper.py", b""),
        (b"elsewhere.py", b"src/main.py"),
        (b"src/lib.py", b""),
    ]


async def test_a_link_in_place_of_a_protected_directory(shared_parts: GitParts, workspace: Workspace) -> None:
    agent = workspace.agent
    (agent.path / ".github").symlink_to("evil")
    agent.write({"evil/workflows/ci.yml": "on: push"})
    head = agent.git("rev-parse", "HEAD")
    agent.git("update-index", "--add", "--cacheinfo", f"160000,{head},ci/tools")
    agent.git("commit", "--quiet", "-m", "a submodule")
    changes = await named(shared_parts, workspace, ".github/workflows/**", "ci/tools/bin")
    assert [path for path, _ in changes] == [b".github"], "a submodule that nobody else has is in no commit"


async def test_what_one_commit_changes_and_another_changes_back_is_pushed_too(
    shared_parts: GitParts, workspace: Workspace
) -> None:
    agent = workspace.agent
    agent.commit("sneak it in", {".github/workflows/ci.yml": "on: push"})
    agent.commit("and out", {".github/workflows/ci.yml": None, "mine": "1"})
    changes = await named(shared_parts, workspace, ".github/workflows/**")
    assert changes == [(b".github/workflows/ci.yml", b"")]


async def test_a_base_that_is_on_no_branch_hides_nothing(parts: GitParts, tmp_path: Path) -> None:
    """A server hands out the commits of forks and of removed branches too, to whoever knows their ids."""
    work = Repo.sample(tmp_path / "work")
    remote = Remote("repo-1", str(work.path))
    work.git("checkout", "--quiet", "--detach")
    forked = work.commit("a fork's", {".github/workflows/ci.yml": "on: push"})
    work.git("update-ref", "refs/pull/1/head", forked)
    work.git("checkout", "--quiet", "main")
    workspace = parts.workspace(await parts.prepare(remote, StartPoint(forked.encode())))
    assert workspace.base.commit_id == forked
    workspace.agent.write({"mine": "1"})
    assert await named(parts, workspace, ".github/workflows/**") == [(b".github/workflows/ci.yml", b"")]

    work.git("update-ref", "refs/heads/theirs", forked)
    again = parts.workspace(await parts.prepare(remote, StartPoint(b"theirs")))
    again.agent.write({"mine": "1"})
    assert await named(parts, again, ".github/workflows/**") == [], "what a branch of the remote has is there already"


async def test_a_diff_applies(shared_parts: GitParts, commits: tuple[str, str], workspace: Workspace) -> None:
    diff, omitted = await whole_diff(shared_parts, *commits)
    assert omitted == 0
    assert b"rename from src/main.py" in diff
    assert b"Binary files /dev/null and b/binary differ" in diff
    text = b"".join(part for part in diff.split(b"diff --git ") if not part.startswith(b"a/binary"))
    assert text.count(b"\n+++ ") == 5


async def test_a_diff_is_cut_between_files(shared_parts: GitParts, commits: tuple[str, str]) -> None:
    whole, _ = await whole_diff(shared_parts, *commits)
    for limit in (1, 200, 500, len(whole) - 1):
        part, omitted = await whole_diff(shared_parts, *commits, max_bytes=limit)
        assert len(part) <= limit
        assert whole.startswith(part)
        assert whole[len(part) :].startswith(b"diff --git ")
        assert omitted == 7 - sum(line.startswith(b"diff --git ") for line in part.splitlines())
    assert await whole_diff(shared_parts, *commits, max_bytes=len(whole)) == (whole, 0)


async def test_unknown_commits_and_repositories(shared_parts: GitParts, commits: tuple[str, str]) -> None:
    with pytest.raises(NotFound, match="revision"):
        await whole_diff(shared_parts, commits[0], "1" * 40)
    with pytest.raises(NotFound, match="repository"):
        await shared_parts.manager.changed_files("other", *commits)


async def test_a_reader_may_leave_early(shared_parts: GitParts, commits: tuple[str, str]) -> None:
    async with aclosing(shared_parts.manager.diff("repo-1", *commits, 0)) as pieces:
        await anext(pieces)


@given(
    st.lists(st.binary(max_size=30).filter(lambda body: b"\ndiff --git " not in body), max_size=6),
    st.integers(1, 40),
    st.integers(0, 300),
)
def test_however_it_arrives_it_is_cut_at_the_same_place(bodies: list[bytes], chunk: int, limit: int) -> None:
    files = [
        b"diff --git " + str(i).encode() + b"\n" + body.replace(b"diff", b"d") + b"\n" for i, body in enumerate(bodies)
    ]
    data = b"".join(files)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), chunk):
            yield data[start : start + chunk]

    async def collect() -> list[bytes]:
        return [part async for part in whole_files(chunks(), limit)]

    expected: list[bytes] = []
    for file in files:
        if sum(map(len, expected)) + len(file) > limit:
            break
        expected.append(file)
    # Nothing here waits, so the coroutine can be run by hand, whatever loop is running.
    coroutine = collect()
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == expected


async def test_a_diff_against_a_branch_begins_where_the_commit_left_it(parts: GitParts, tmp_path: Path) -> None:
    work = Repo.sample(tmp_path / "work")
    remote = Remote("repo-1", str(work.path))
    workspace = parts.workspace(await parts.prepare(remote))
    workspace.agent.write({"mine": "1"})
    result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    work.commit("theirs", {"theirs": "2"})
    await parts.prepare(remote)
    changes = await parts.manager.changed_files("repo-1", b"main", result.commit_id)
    assert [change.path for change in changes] == [b"mine"]
    *_, end = [piece async for piece in parts.manager.diff("repo-1", b"main", result.commit_id, 0)]
    assert end == DiffEnd(0, workspace.base.commit_id)
    with pytest.raises(NotFound, match="nope"):
        await parts.manager.changed_files("repo-1", b"nope", result.commit_id)
