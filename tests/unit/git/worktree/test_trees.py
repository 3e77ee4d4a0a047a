"""Everyday git in a working copy."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound
from services.common.fence import Fence, set_current_fence
from services.common.ids import new_id
from services.git.model import Head, Remote, Signature, StatusEntry, WorkingTree
from services.git.worktree.trees import parse_status
from services.sandbox.spec import Tier
from tests.kit.disks import fill, make_room, needs_mount, small_disk
from tests.kit.gitservice import SIGNATURE, GitParts, Workspace
from tests.kit.repos import Repo

BRANCH = b"boatyard/job-1"


@pytest.mark.parametrize("tier", list(Tier))
async def test_branch_stage_and_commit(shared_parts: GitParts, workspace: Workspace, tier: Tier) -> None:
    manager, base = shared_parts.manager, workspace.base.commit_id
    tree = WorkingTree(workspace.tree.path, workspace.tree.read_only_paths, tier)
    assert await manager.head(tree) == Head(b"", base)
    assert await manager.create_branch(tree, BRANCH, "") == base
    assert await manager.create_branch(tree, BRANCH, base) == base
    assert await manager.head(tree) == Head(BRANCH, base)
    assert await manager.status(tree) == []
    workspace.agent.write({"README": None, "src/lib.py": "changed\n", "new \xe9": "x"})
    assert await manager.status(tree) == [
        StatusEntry(b"README", ".", "D"),
        StatusEntry("new \xe9".encode(), "?", "?"),
        StatusEntry(b"src/lib.py", ".", "M"),
    ]
    assert await manager.stage_all(tree) == 3
    assert await manager.stage_all(tree) == 3
    commit = await manager.commit(tree, "the work", SIGNATURE)
    assert await manager.commit(tree, "the work", SIGNATURE) == commit
    assert await manager.head(tree) == Head(BRANCH, commit)
    agent = Repo(workspace.tree.path)
    assert agent.git("log", "-1", "--format=%an <%ae> %at %cn <%ce> %ct %B").strip() == (
        "Boatyard <boatyard@example.com> 1800000000 Boatyard <boatyard@example.com> 1800000000 the work"
    )
    with pytest.raises(FailedPrecondition) as failure:
        await manager.commit(tree, "another", SIGNATURE)
    assert failure.value.reason == "NOTHING_TO_COMMIT"


LEFT_BY_PROGRAMS = {
    ".aider.tags": "x",
    "src/.aider.log": "x",
    ".aider.cache/a": "x",
    "deep/.aider.cache/b": "x",
    "kept": "x",
    ".gitignore": "!.aider.conf\n*.log\n",
    ".aider.conf": "negated by the repository",
    "a.log": "ignored by it",
    ".boatyard/prompt": "ours",
    "src/.boatyard": "not ours",
    "new \xe9\n": "x",
    ".aider \xe9\n": "x",
    ":(glob)*": "x",
    "-f": "x",
}


@pytest.mark.parametrize("staged", [False, True], ids=["untouched", "staged by the agent"])
async def test_a_commit_has_what_a_result_has(shared_parts: GitParts, workspace: Workspace, staged: bool) -> None:
    """Whatever the agent staged by force, and made its own repository ignore."""
    leave_out = (".aider*",)
    agent = workspace.agent
    agent.write({**LEFT_BY_PROGRAMS, "README": None, "src/lib.py": "changed\n", ".git/info/exclude": "kept\n"})
    agent.git("config", "core.excludesFile", "src/.boatyard")
    if staged:
        agent.git("add", "--all", "--force")
    spec = replace(workspace.take_spec(), leave_out=leave_out)
    result = await shared_parts.manager.take_result("repo-1", new_id("result"), spec)
    await shared_parts.manager.stage_all(workspace.tree, leave_out)
    await shared_parts.manager.commit(workspace.tree, "the work", SIGNATURE)
    store = Repo(shared_parts.paths.result_store("repo-1"))
    assert agent.git("ls-tree", "-r", "HEAD") == store.git("ls-tree", "-r", result.commit_id)


def begin_inside(tree: Path, name: str, *, commits: bool = True) -> None:
    (tree / name).mkdir(parents=True)
    nested = Repo(tree / name)
    nested.git("init", "--quiet")
    nested.write({".gitignore": "built\n", "built": "x", "a.log": "x", "f": "x"})
    (tree / name / "link").symlink_to("f")
    if commits:
        nested.commit("Begin", {"g": "x"})


NESTED: dict[str, tuple[tuple[str, bool], ...]] = {
    "with commits": (("inner", True),),
    "without commits": (("inner", False),),
    "in one another": (("inner", True), ("inner/more", False)),
    "with a strange name": (("-x :(top)*", True), ("deep/\xe9", False)),
    "ignored": (("ignored", True),),
}


@pytest.mark.parametrize("nested", NESTED)
async def test_a_repository_inside_the_tree_is_committed_as_files(
    shared_parts: GitParts, workspace: Workspace, nested: str
) -> None:
    """As in a result: a link would lead to a commit that nobody has."""
    workspace.agent.write({".gitignore": "*.log\nignored/\n", "new": "x"})
    for name, commits in NESTED[nested]:
        begin_inside(workspace.tree.path, name, commits=commits)
    result = await shared_parts.manager.take_result("repo-1", new_id("result"), workspace.take_spec())
    await shared_parts.manager.stage_all(workspace.tree)
    await shared_parts.manager.commit(workspace.tree, "the work", SIGNATURE)
    store = Repo(shared_parts.paths.result_store("repo-1"))
    assert workspace.agent.git("ls-tree", "-r", "HEAD") == store.git("ls-tree", "-r", result.commit_id)


async def test_what_head_has_is_committed_whatever_its_name(shared_parts: GitParts, workspace: Workspace) -> None:
    agent = workspace.agent
    agent.commit("Settings of the tool", {".aider.conf": "1"})
    agent.write({".aider.conf": "2", ".aider.log": "x"})
    assert await shared_parts.manager.stage_all(workspace.tree, (".aider*",)) == 1
    await shared_parts.manager.commit(workspace.tree, "the work", SIGNATURE)
    assert agent.git("show", "HEAD:.aider.conf") == "2"
    assert agent.git("status", "--porcelain").strip() == "?? .aider.log"


@needs_mount
async def test_a_tree_without_room_is_a_full_disk_also_where_git_does_not_say_so(
    parts: GitParts, remote: Remote, tmp_path: Path
) -> None:
    base = await parts.prepare(remote)
    with small_disk(tmp_path / "small", size="512k") as disk:
        tree = WorkingTree(disk / "tree", base.read_only_paths)
        shutil.copytree(parts.workspace(base).tree.path, tree.path, symlinks=True)
        ballast = fill(disk)
        with pytest.raises(Exhausted) as failure:
            await parts.manager.create_branch(tree, BRANCH, "")
        assert failure.value.reason == "DISK_FULL"
        make_room(ballast)
        assert await parts.manager.create_branch(tree, BRANCH, "") == base.commit_id


async def test_a_signature_that_git_tidies_up_is_known_again(shared_parts: GitParts, workspace: Workspace) -> None:
    signature = Signature(" Ada Jr. ", "ada@example.com", 1)
    workspace.agent.write({"a": "1"})
    await shared_parts.manager.stage_all(workspace.tree)
    commit = await shared_parts.manager.commit(workspace.tree, "m", signature)
    assert await shared_parts.manager.commit(workspace.tree, "m", signature) == commit


async def test_a_branch_elsewhere_and_a_commit_that_is_not_there(shared_parts: GitParts, workspace: Workspace) -> None:
    manager, older = shared_parts.manager, workspace.agent.head("HEAD~1")
    await manager.create_branch(workspace.tree, b"old", older)
    with pytest.raises(AlreadyExists) as failure:
        await manager.create_branch(workspace.tree, b"old", workspace.base.commit_id)
    assert failure.value.reason == "BRANCH_EXISTS"
    with pytest.raises(NotFound):
        await manager.create_branch(workspace.tree, b"new", "1" * 40)


async def test_a_branch_after_a_git_that_was_killed(shared_parts: GitParts, workspace: Workspace) -> None:
    manager, base = shared_parts.manager, workspace.base.commit_id
    for left in ("HEAD.lock", "refs/heads/boatyard/job-1.lock"):
        lock = workspace.tree.path / ".git" / left
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    assert await manager.create_branch(workspace.tree, BRANCH, base) == base
    assert await manager.head(workspace.tree) == Head(BRANCH, base)


async def test_a_tree_without_a_repository(shared_parts: GitParts, workspace: Workspace) -> None:
    shutil.rmtree(workspace.tree.path / ".git")
    manager = shared_parts.manager
    for call in (
        manager.head(workspace.tree),
        manager.status(workspace.tree),
        manager.stage_all(workspace.tree),
        manager.create_branch(workspace.tree, BRANCH, ""),
        manager.commit(workspace.tree, "m", SIGNATURE),
        manager.status(WorkingTree(Path("/nonexistent"))),
    ):
        with pytest.raises(FailedPrecondition) as failure:
            await call
        assert failure.value.reason == "NOT_A_REPOSITORY"


async def test_a_branch_without_a_commit(shared_parts: GitParts, workspace: Workspace) -> None:
    shutil.rmtree(workspace.tree.path / ".git")
    workspace.agent.git("init", "--quiet", "--initial-branch=fresh")
    assert await shared_parts.manager.head(workspace.tree) == Head(b"fresh", "")
    assert await shared_parts.manager.stage_all(workspace.tree) == 3
    assert await shared_parts.manager.commit(workspace.tree, "m", SIGNATURE) == workspace.agent.head()


async def test_a_lower_fence_changes_nothing(shared_parts: GitParts, workspace: Workspace) -> None:
    manager = shared_parts.manager
    try:
        set_current_fence(Fence("job-1", 2))
        await manager.stage_all(workspace.tree)
        set_current_fence(Fence("job-1", 1))
        for call in (
            manager.stage_all(workspace.tree),
            manager.create_branch(workspace.tree, BRANCH, ""),
            manager.commit(workspace.tree, "m", SIGNATURE),
            manager.take_result("repo-1", "result-1", workspace.take_spec()),
        ):
            with pytest.raises(FailedPrecondition) as failure:
                await call
            assert failure.value.reason == "STALE_FENCE"
    finally:
        set_current_fence(None)


def test_every_kind_of_status_record_is_read() -> None:
    output = b"\0".join(
        [
            b"# branch.oid x",
            b"1 .M N... 100644 100644 100644 a b spaced name",
            b"2 R. N... 100644 100644 100644 a b R100 new",
            b"old",
            b"u UU N... 100644 100644 100644 100644 a b c both",
            b"? \xff\n",
            b"",
        ]
    )
    assert parse_status(output) == [
        StatusEntry(b"spaced name", ".", "M"),
        StatusEntry(b"new", "R", ".", b"old"),
        StatusEntry(b"both", "U", "U"),
        StatusEntry(b"\xff\n", "?", "?"),
    ]
