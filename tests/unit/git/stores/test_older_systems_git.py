"""The rows of the older systems about git, as docs/from-older-systems.md has them: diff, status and push of a tree."""

import subprocess
from pathlib import Path

import pytest
from boatyard.git.v1 import git_pb2 as pb

from services.common.errors import FailedPrecondition, NotFound
from services.git.model import CloneSpec, DiffEnd, Remote, WorkingTree
from tests.kit.gitservice import SIGNATURE, GitParts
from tests.kit.repos import Repo


async def diff_of(parts: GitParts, tree: WorkingTree, max_bytes: int = 0) -> tuple[bytes, DiffEnd]:
    pieces = [piece async for piece in parts.manager.tree_diff(tree, max_bytes)]
    assert isinstance(pieces[-1], DiffEnd)
    return b"".join(pieces[:-1]), pieces[-1]


def applied(diff: bytes, base: Repo, at: str, to: Path) -> dict[str, str]:
    """Return the files that git makes of a commit and a diff."""
    base.git("worktree", "add", "--quiet", "--detach", str(to), at)
    subprocess.run(["git", "-C", to, "apply", "--index", "-"], input=diff, check=True)
    return Repo(to).files(Repo(to).git("write-tree"))


async def test_older_systems_get_diff_of_a_working_tree(
    parts: GitParts, remote: Remote, work: Repo, tmp_path: Path
) -> None:
    """Changed, new, renamed, deleted and staged files; not what git ignores. The tree itself stays as it was."""
    workspace = parts.workspace(await parts.prepare(remote))
    assert await diff_of(parts, workspace.tree) == (b"", DiffEnd(0, workspace.base.commit_id))
    agent = workspace.agent
    agent.write({"README": None, "src/lib.py": "changed\n", "new \xe9": "x\n", ".gitignore": "*.o\n", "a.o": "o\n"})
    agent.git("add", "src/lib.py")
    index = (workspace.tree.path / ".git" / "index").read_bytes()
    diff, end = await diff_of(parts, workspace.tree)
    assert end == DiffEnd(0, workspace.base.commit_id)
    made = applied(diff, work, workspace.base.commit_id, tmp_path / "applied")
    assert {path: made.get(path) for path in ("src/lib.py", "new \xe9", ".gitignore", "a.o")} == {
        "src/lib.py": "changed",
        "new \xe9": "x",
        ".gitignore": "*.o",
        "a.o": None,
    }
    assert b"deleted file" in diff
    assert (workspace.tree.path / ".git" / "index").read_bytes() == index
    assert list(parts.paths.scratch_root.iterdir()) == []


@pytest.mark.slow
async def test_older_systems_a_diff_is_cut_at_a_file(parts: GitParts, remote: Remote) -> None:
    workspace = parts.workspace(await parts.prepare(remote))
    workspace.agent.write({"a": "1\n", "b": "2\n" * 1000, "c": "3\n"})
    whole, _ = await diff_of(parts, workspace.tree)
    cut, end = await diff_of(parts, workspace.tree, 1000)
    assert whole.startswith(cut)
    assert (cut.count(b"diff --git"), end.omitted_files) == (1, 2)


@pytest.mark.slow
async def test_older_systems_what_a_tree_makes_git_run_is_run_in_the_sandbox(
    parts: GitParts, remote: Remote, tmp_path: Path
) -> None:
    workspace, marker = parts.workspace(await parts.prepare(remote)), tmp_path / "escaped"
    agent = workspace.agent
    agent.write({".gitattributes": "* filter=bad diff=bad\n", "x": "1\n"})
    for key in (
        "filter.bad.clean",
        "diff.bad.textconv",
        "diff.external",
        "core.fsmonitor",
        "uploadpack.packObjectsHook",
    ):
        agent.git("config", key, f"touch {marker}; cat")
    agent.git("-c", "core.fsmonitor=", "commit", "--quiet", "--allow-empty", "--no-verify", "-m", "x")
    marker.unlink(missing_ok=True)
    await diff_of(parts, workspace.tree)
    await parts.manager.push(remote, agent.head(), b"work", "", tree=workspace.tree)
    assert not marker.exists()


async def test_older_systems_a_tree_without_a_repository_has_no_diff(parts: GitParts, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(FailedPrecondition) as raised:
        await diff_of(parts, WorkingTree(tmp_path / "plain"))
    assert raised.value.reason == "NOT_A_REPOSITORY"


@pytest.mark.slow
async def test_older_systems_push_of_a_commit_just_made(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    """Branch, stage all, commit, push: nothing of it is a result that was taken."""
    workspace = parts.workspace(await parts.prepare(remote))
    manager, tree = parts.manager, workspace.tree
    await manager.create_branch(tree, b"work", "")
    for content in ("1\n", "2\n"):
        workspace.agent.write({"file": content})
        await manager.stage_all(tree)
        commit = await manager.commit(tree, content, SIGNATURE)
    with pytest.raises(NotFound) as raised:
        await manager.push(remote, commit, b"work", "")
    assert raised.value.reason == "REVISION_NOT_FOUND"
    assert not await manager.push(remote, commit, b"work", "", tree=tree)
    assert upstream.files("work")["file"] == "2"
    assert upstream.head("work~2") == workspace.base.commit_id, "with what led to it"
    assert await manager.push(remote, commit, b"work", "", tree=tree), "again"
    with pytest.raises(NotFound):
        await manager.push(remote, "1" * 40, b"other", "", tree=tree)


@pytest.mark.slow
async def test_older_systems_a_commit_that_lacks_an_object_is_not_pushed(
    parts: GitParts, remote: Remote, upstream: Repo
) -> None:
    workspace = parts.workspace(await parts.prepare(remote))
    agent = workspace.agent
    agent.write({"file": "1\n"})
    agent.git("add", "--all")
    agent.git("commit", "--quiet", "-m", "x")
    blob = agent.git("rev-parse", "HEAD:file").strip()
    (workspace.tree.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(FailedPrecondition) as raised:
        await parts.manager.push(remote, agent.head(), b"work", "", tree=workspace.tree)
    assert raised.value.reason == "TAKE_FAILED"
    assert "work" not in upstream.git("branch", "--list", "work")


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, {"repository_id", "base", "commit_id"}),
        ({"repository_id": "r", "base_branch": "main"}, {"commit_id"}),
        ({"repository_id": "r", "base_commit_id": "1" * 40, "commit_id": "1" * 40}, set()),
        ({"tree": {"layout": {"path": "/elsewhere"}}}, set()),
        (
            {"tree": {"layout": {"path": "/elsewhere"}}, "commit_id": "1" * 40, "base_branch": "main"},
            {"commit_id", "base"},
        ),
    ],
)
async def test_older_systems_a_diff_is_of_a_tree_or_of_commits(
    shared_parts: GitParts, given: dict[str, object], fields: set[str]
) -> None:
    violations = shared_parts.rules.violations(pb.GetDiffRequest(**given))
    assert {field for field, _ in violations} == fields


@pytest.mark.slow
async def test_older_systems_a_clone_takes_every_operation(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    """Cloned with a depth of 1, as theirs were: branch, status, diff, stage, commit and push; listed, and removed."""
    manager = parts.manager
    for clone_id in ("clone-a", "clone-b"):
        made = await manager.clone(CloneSpec(clone_id, Remote("repo-1", f"file://{upstream.path}"), depth=1))
        assert parts.paths.tree_complaint(bytes(made.path)) is None
    tree = WorkingTree(made.path)
    await manager.create_branch(tree, b"work", "")
    (made.path / "new").write_text("1\n")
    assert [entry.path for entry in await manager.status(tree)] == [b"new"]
    assert b"+1" in (await diff_of(parts, tree))[0]
    await manager.stage_all(tree)
    commit = await manager.commit(tree, "m", SIGNATURE)
    assert (await manager.head(tree)).branch == b"work"
    assert not await manager.push(remote, commit, b"work", "", tree=tree)
    assert upstream.head("work~1") == made.commit_id

    usages = await manager.clone_usages()
    assert [(each.clone_id, each.path.name, each.bytes > 0) for each in usages] == [
        ("clone-a", "clone-a", True),
        ("clone-b", "clone-b", True),
    ]
    for _ in range(2):  # the second time it is gone already
        await manager.delete_clone("clone-b")
    assert [each.clone_id for each in await manager.clone_usages()] == ["clone-a"]
    assert not made.path.exists()
    again = await manager.clone(CloneSpec("clone-b", remote, b"", 0))
    assert again.commit_id == made.commit_id, "another request may have its id"


def test_older_systems_of_our_data_only_workspaces_and_clones_are_trees(shared_parts: GitParts) -> None:
    paths = shared_parts.paths
    for inside in (
        paths.root,
        paths.clones,
        paths.clones / "c" / ".git",
        paths.clones / ".." / "mirrors",
        paths.mirrors,
    ):
        assert paths.tree_complaint(bytes(inside)) is not None, inside
