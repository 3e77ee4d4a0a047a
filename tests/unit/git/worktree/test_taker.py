"""Whatever an agent does to its working copy, the files come out, and nothing of its runs with our rights."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.errors import FailedPrecondition, NotFound
from services.git.model import Caveat, Remote, ResultCommit, StartPoint, TakeSpec, WorkingTree
from services.sandbox.spec import Tier
from tests.kit.gitservice import SIGNATURE, GitParts, Workspace, git_parts
from tests.kit.repos import FILES, Repo

CHANGED = "def one():\n    return 2\n"


async def take(parts: GitParts, workspace: Workspace, result_id: str = "result-1") -> ResultCommit:
    return await parts.manager.take_result("repo-1", result_id, workspace.take_spec())


def stored(parts: GitParts) -> Repo:
    return Repo(parts.paths.result_store("repo-1"))


def content(parts: GitParts, commit_id: str) -> dict[str, str]:
    return stored(parts).files(commit_id)


async def test_a_change_becomes_a_commit_on_the_base(shared_parts: GitParts, workspace: Workspace) -> None:
    workspace.agent.write({"src/lib.py": CHANGED, "new/file": "new\n", "README": None})
    result = await take(shared_parts, workspace)
    assert result.changed
    assert result.agent_commits == 0
    store = stored(shared_parts)
    assert store.git("log", "--format=%P|%an|%ae|%ct|%B", "-1", result.commit_id).strip() == (
        f"{workspace.base.commit_id}|Boatyard|boatyard@example.com|{SIGNATURE.seconds}|the work"
    )
    files = content(shared_parts, result.commit_id)
    assert files["src/lib.py"] == CHANGED.strip()
    assert files["new/file"] == "new"
    assert "README" not in files
    assert store.head("refs/results/result-1") == result.commit_id


async def test_nothing_changed_is_no_commit(shared_parts: GitParts, workspace: Workspace) -> None:
    result = await take(shared_parts, workspace)
    assert result == ResultCommit(workspace.base.commit_id, changed=False)


@pytest.mark.parametrize("what", ["deletes", "remakes", "rewinds", "replaces by a file", "fills with rubbish"])
async def test_a_ruined_git_directory_loses_nothing(shared_parts: GitParts, workspace: Workspace, what: str) -> None:
    agent = workspace.agent
    agent.write({"src/lib.py": CHANGED})
    dot_git = agent.path / ".git"
    if what == "deletes":
        shutil.rmtree(dot_git)
    elif what == "remakes":
        shutil.rmtree(dot_git)
        agent.git("init", "--quiet")
        agent.commit("all mine")
    elif what == "rewinds":
        agent.git("reset", "--quiet", "--soft", "HEAD~1")
    elif what == "replaces by a file":
        shutil.rmtree(dot_git)
        dot_git.write_text("gitdir: /etc\n")
    else:
        (dot_git / "config").write_text("[core\n")
        (dot_git / "HEAD").write_bytes(os.urandom(64))
    result = await take(shared_parts, workspace)
    assert (result.changed, result.agent_commits) == (True, 0)
    assert content(shared_parts, result.commit_id) == {
        **{k: v.strip() for k, v in FILES.items()},
        "src/lib.py": CHANGED.strip(),
    }
    assert stored(shared_parts).head(f"{result.commit_id}~1") == workspace.base.commit_id


async def test_a_tree_reset_to_an_older_commit_is_taken_as_it_is(shared_parts: GitParts, workspace: Workspace) -> None:
    workspace.agent.git("reset", "--quiet", "--hard", "HEAD~1")
    result = await take(shared_parts, workspace)
    assert result.changed
    assert content(shared_parts, result.commit_id)["src/lib.py"] == FILES["src/lib.py"].strip()
    assert stored(shared_parts).head(f"{result.commit_id}~1") == workspace.base.commit_id


async def test_the_agents_commits_are_kept(shared_parts: GitParts, workspace: Workspace) -> None:
    workspace.agent.commit("one", {"a": "1"})
    second = workspace.agent.commit("two", {"b": "2"})
    clean = await take(shared_parts, workspace)
    assert (clean.commit_id, clean.agent_commits) == (second, 2)
    workspace.agent.write({"c": "3"})
    dirty = await take(shared_parts, workspace)
    assert stored(shared_parts).head(f"{dirty.commit_id}~1") == second
    assert dirty.agent_commits == 2
    assert content(shared_parts, dirty.commit_id)["c"] == "3"


async def test_commits_that_do_not_hold_are_dropped_and_their_files_kept(
    shared_parts: GitParts, workspace: Workspace
) -> None:
    agent = workspace.agent
    agent.commit("good", {"a": "1"})
    raw = f"tree {'1' * 40}\nparent {agent.head()}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nbad\n".encode()
    bad = agent.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=raw)
    agent.git("update-ref", "HEAD", bad)
    result = await take(shared_parts, workspace)
    assert (result.changed, result.agent_commits) == (True, 0)
    assert content(shared_parts, result.commit_id)["a"] == "1"


async def test_what_is_ours_in_the_tree_is_no_part_of_the_result(shared_parts: GitParts, workspace: Workspace) -> None:
    workspace.agent.write({".boatyard/input/a.csv": "1", "sub/.boatyard": "the agent's"})
    mine = workspace.agent.commit("all that git sees", {"b": "2"})
    workspace.agent.write({".boatyard/ask.json": "{}"})
    result = await take(shared_parts, workspace)
    assert (result.commit_id, result.agent_commits) == (mine, 1), "the agent's own git ignores it too"
    shutil.rmtree(workspace.agent.path / ".git" / "info")
    workspace.agent.write({"c": "3"})
    again = await take(shared_parts, workspace, "result-2")
    names = set(content(shared_parts, again.commit_id)) - set(FILES)
    assert names == {"b", "c", "sub/.boatyard"}, "and ours, whatever became of its rules"


LEFT = {
    ".aider*": {".aider.chat.history.md", ".aider.tags.cache/a", "sub/.aider.input"},
    "*.log": {"a.log", "sub/b.log"},
    "/only-here": {"only-here/a"},
    "spaces in it": {"spaces in it"},
    "**/deep/": {"x/deep/a"},
    ".boatyard": set(),
}


@pytest.mark.parametrize("pattern", LEFT)
async def test_files_that_nobody_wants_are_left_out(shared_parts: GitParts, workspace: Workspace, pattern: str) -> None:
    workspace.agent.write({"wanted": "1", "sub/only-here/a": "1"} | dict.fromkeys(set.union(*LEFT.values()), "1"))
    whole = await take(shared_parts, workspace)
    spec = replace(workspace.take_spec(), leave_out=(pattern,))
    less = await shared_parts.manager.take_result("repo-1", "result-less", spec)
    assert set(content(shared_parts, whole.commit_id)) - set(content(shared_parts, less.commit_id)) == LEFT[pattern]


async def test_what_the_base_has_is_not_left_out(shared_parts: GitParts, workspace: Workspace) -> None:
    workspace.agent.write({"README": "changed", "new": "1"})
    result = await shared_parts.manager.take_result(
        "repo-1", "result-1", replace(workspace.take_spec(), leave_out=("*",))
    )
    assert content(shared_parts, result.commit_id) == content(shared_parts, workspace.base.commit_id) | {
        "README": "changed"
    }


async def test_taking_twice_is_the_same_commit(shared_parts: GitParts, workspace: Workspace) -> None:
    workspace.agent.write({"a": "1"})
    first = await take(shared_parts, workspace)
    os.utime(workspace.agent.path / "a")
    assert await take(shared_parts, workspace) == first


async def test_nested_repositories_are_taken_as_files(
    shared_parts: GitParts, workspace: Workspace, tmp_path: Path
) -> None:
    nested = Repo.init(workspace.agent.path / "vendor" / "lib")
    nested.commit("theirs", {"deep/file": "content", ".gitignore": "*.log\n", "x.log": "noise"})
    canary = tmp_path / "canary"
    for key in ("core.fsmonitor", "filter.evil.clean", "core.sshCommand"):
        nested.git("config", key, f"touch {canary}; cat")
    Repo.init(workspace.agent.path / "unborn").write({"here": "too"})
    linked = workspace.agent.path / "linked"
    linked.mkdir()
    (linked / ".git").write_text("gitdir: ../vendor/lib/.git\n")
    (linked / "file").write_text("linked")
    result = await take(shared_parts, workspace)
    files = content(shared_parts, result.commit_id)
    assert {"vendor/lib/deep/file", "vendor/lib/.gitignore", "unborn/here", "linked/file"} <= files.keys()
    assert "vendor/lib/x.log" not in files
    assert result.caveats == ()
    assert not canary.exists()


async def test_a_nested_repository_that_the_agent_committed_as_a_link_is_taken_as_files(
    shared_parts: GitParts, workspace: Workspace
) -> None:
    Repo.init(workspace.agent.path / "nested").commit("theirs", {"file": "content"})
    before = workspace.agent.head()
    workspace.agent.commit("with a link")
    assert "160000 commit" in workspace.agent.git("ls-tree", "HEAD", "nested")
    result = await take(shared_parts, workspace)
    assert content(shared_parts, result.commit_id)["nested/file"] == "content"
    assert stored(shared_parts).head(f"{result.commit_id}~1") == before, "nobody could check out the agent's commit"
    assert (result.agent_commits, result.caveats) == (0, ())


async def test_without_a_sandbox_nested_repositories_are_taken_as_files_too(
    shared_parts: GitParts, workspace: Workspace
) -> None:
    nested = Repo.init(workspace.agent.path / "nested")
    nested.commit("theirs", {"file": "content", ".gitignore": "*.log\n", "x.log": "noise"})
    workspace.agent.commit("with a link")
    Repo.init(workspace.agent.path / "unborn").write({"here": "too"})
    Repo.init(workspace.agent.path / "src").commit("over what is tracked", {"lib.py": CHANGED})
    tree = WorkingTree(workspace.tree.path, workspace.tree.read_only_paths, Tier.NONE)
    spec = TakeSpec(tree, workspace.base.commit_id, "the work", SIGNATURE)
    result = await shared_parts.manager.take_result("repo-1", "result-1", spec)
    files = content(shared_parts, result.commit_id)
    assert files.keys() == FILES.keys() | {"nested/file", "nested/.gitignore", "unborn/here"}
    assert files["src/lib.py"] == CHANGED.strip()
    assert result.caveats == ()


async def test_a_hostile_git_directory_executes_nothing_with_our_rights(
    shared_parts: GitParts, workspace: Workspace, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    script.chmod(0o755)
    agent = workspace.agent
    for key in ("core.fsmonitor", "core.hooksPath", "filter.evil.clean", "filter.evil.smudge", "diff.evil.textconv",
                "remote.origin.uploadpack", "core.alternateRefsCommand", "gpg.program", "core.editor"):  # fmt: skip
        agent.git("config", key, str(script if key != "core.hooksPath" else tmp_path))
    agent.git("config", "commit.gpgSign", "true")
    (tmp_path / "post-index-change").symlink_to(script)
    agent.write({".gitattributes": "* filter=evil diff=evil\n", "a": "1"})
    manager = shared_parts.manager
    await manager.status(workspace.tree)
    await manager.create_branch(workspace.tree, b"work", "")
    await manager.stage_all(workspace.tree)
    await manager.commit(workspace.tree, "mine", SIGNATURE)
    result = await take(shared_parts, workspace)
    assert content(shared_parts, result.commit_id)["a"] == "1"
    assert not canary.exists()


async def test_no_other_store_can_be_borrowed_from(
    shared_parts: GitParts, workspace: Workspace, tmp_path: Path
) -> None:
    secret = Repo.init(tmp_path / "secret")
    commit = secret.commit("unpublished", {"secret": "s3cret"})
    alternates = workspace.agent.path / ".git" / "objects" / "info" / "alternates"
    with alternates.open("a") as file:
        file.write(f"{secret.path}/.git/objects\n")
    workspace.agent.git("update-ref", "refs/heads/stolen", commit)
    workspace.agent.git("symbolic-ref", "HEAD", "refs/heads/stolen")
    result = await take(shared_parts, workspace)
    assert not result.changed
    stored(shared_parts).git("cat-file", "-e", commit, code=1)


async def test_names_need_not_be_utf_8(shared_parts: GitParts, workspace: Workspace) -> None:
    (workspace.agent.path / os.fsdecode(b"\xff\n-x")).write_text("odd")
    result = await take(shared_parts, workspace)
    changes = await shared_parts.manager.changed_files("repo-1", workspace.base.commit_id, result.commit_id)
    assert [change.path for change in changes] == [b"\xff\n-x"]


async def test_a_result_can_be_started_from_and_taken_again(
    shared_parts: GitParts, workspace: Workspace, shared_remote: Remote
) -> None:
    workspace.agent.write({"a": "1"})
    first = await take(shared_parts, workspace)
    base = await shared_parts.prepare(shared_remote, StartPoint(result_commit_id=first.commit_id))
    assert base.commit_id == first.commit_id
    assert (base.layers[0] / "a").read_text() == "1"
    again = shared_parts.workspace(base)
    assert again.agent.git("status", "--porcelain") == ""
    again.agent.commit("mine", {"b": "2"})
    second = await take(shared_parts, again, "result-2")
    assert (second.agent_commits, second.changed) == (1, True)
    assert stored(shared_parts).head(f"{second.commit_id}~1") == first.commit_id


async def test_the_tree_of_a_result_goes_when_nobody_has_asked_for_it_and_comes_again(
    shared_parts: GitParts, shared_remote: Remote, workspace: Workspace
) -> None:
    workspace.agent.write({"swept": "1"})
    result = await take(shared_parts, workspace)
    start = StartPoint(result_commit_id=result.commit_id)
    base = await shared_parts.prepare(shared_remote, start)
    upstream = await shared_parts.prepare(shared_remote)
    hours_ago = time.time() - 7200
    for path in (base.layers[0].parent, base.pins_path, upstream.layers[0].parent, upstream.pins_path):
        os.utime(path, (hours_ago, hours_ago))
    await shared_parts.manager.budget.evict()
    assert not base.layers[0].exists()
    assert upstream.layers[0].exists()
    assert (await shared_parts.prepare(shared_remote, start)).layers == base.layers
    assert (base.layers[0] / "swept").read_text() == "1"


async def test_what_cannot_be_taken_says_why(shared_parts: GitParts, workspace: Workspace) -> None:
    with pytest.raises(NotFound, match="repository"):
        await shared_parts.manager.take_result("other", "result-1", workspace.take_spec())
    unknown = TakeSpec(workspace.tree, "0" * 40, "m", SIGNATURE)
    with pytest.raises(NotFound, match="revision"):
        await shared_parts.manager.take_result("repo-1", "result-1", unknown)
    gone = TakeSpec(WorkingTree(workspace.tree.path / "gone"), workspace.base.commit_id, "m", SIGNATURE)
    with pytest.raises(FailedPrecondition, match="no directory") as failure:
        await shared_parts.manager.take_result("repo-1", "result-1", gone)
    assert failure.value.reason == "TAKE_FAILED"


async def test_a_result_that_is_too_large_is_refused(tmp_path: Path, remote: Remote) -> None:
    async with git_parts(tmp_path / "home", tmp_path, max_result_bytes=200_000) as parts:
        workspace = parts.workspace(await parts.prepare(remote))
        workspace.agent.write({"noise": os.urandom(3_000_000)})
        with pytest.raises(FailedPrecondition, match="more than 200000 bytes") as failure:
            await take(parts, workspace)
        assert failure.value.reason == "RESULT_TOO_LARGE"
        assert list(parts.paths.scratch_root.iterdir()) == []


async def test_nothing_is_left_of_an_attempt(shared_parts: GitParts, workspace: Workspace) -> None:
    workspace.agent.write({"a": "1"})
    await take(shared_parts, workspace)
    assert list(shared_parts.paths.scratch_root.iterdir()) == []


async def test_a_submodule_stays_a_link_and_what_is_put_into_it_is_reported(parts: GitParts, tmp_path: Path) -> None:
    work = Repo.sample(tmp_path / "work")
    link = work.head("HEAD~1")
    work.git("update-index", "--add", "--cacheinfo", f"160000,{link},sub")
    work.git("commit", "--quiet", "--message=with a submodule")
    remote = Remote("repo-1", str(work.path))
    base = await parts.prepare(remote)
    workspace = parts.workspace(base)
    assert await take(parts, workspace) == ResultCommit(base.commit_id, changed=False)
    Repo.init(workspace.agent.path / "sub").commit("inside", {"file": "content"})
    Repo.init(workspace.agent.path / "sub" / "deeper").commit("inside", {"file": "content"})
    workspace.agent.write({"a": "1"})
    result = await take(parts, workspace)
    assert result.caveats == (Caveat(CaveatKind.SUBMODULE_CONTENT, (b"sub",), 1),)
    changes = await parts.manager.changed_files("repo-1", base.commit_id, result.commit_id)
    assert [change.path for change in changes] == [b"a"]
