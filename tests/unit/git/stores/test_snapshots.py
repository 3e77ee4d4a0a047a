"""A working tree that is kept can be looked at, compared and started from, until it is deleted or its time is over."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from boatyard.git.v1 import git_pb2 as pb

from services.common.errors import FailedPrecondition, NotFound, RequestIdReused
from services.common.fence import Fence, set_current_fence
from services.git.model import Remote, SnapshotSpec, StartPoint
from services.git.wire import from_proto
from tests.kit.gitservice import GitParts, Workspace
from tests.kit.repos import FILES, Repo


def spec(workspace: Workspace, snapshot_id: str, message: str = "kept") -> SnapshotSpec:
    return SnapshotSpec(snapshot_id, "repo-1", workspace.tree, workspace.base.commit_id, message, timedelta(hours=1))


async def listed(parts: GitParts, size: int = 1000) -> list[str]:
    snapshot_ids: list[str] = []
    request = pb.ListSnapshotsRequest(repository_id="repo-1", page_size=size)
    while True:
        rows, request.page_token = await parts.manager.snapshot_page(*from_proto.snapshots(request))
        snapshot_ids += [snapshot.snapshot_id for snapshot in rows]
        if not request.page_token:
            return snapshot_ids


def store(parts: GitParts) -> Repo:
    return Repo(parts.paths.result_store("repo-1"))


async def test_a_snapshot_holds_the_tree_and_a_workspace_starts_from_it(
    shared_parts: GitParts, workspace: Workspace, shared_remote: Remote
) -> None:
    manager = shared_parts.manager
    workspace.agent.write({".gitignore": "*.log\n", "x.log": "noise", "new": "1", "README": None})
    kept = await manager.snapshot_tree(spec(workspace, "fork"))
    assert store(shared_parts).files(kept.commit_id).keys() == {".gitignore", "new", "src/lib.py", "src/main.py"}
    assert await manager.snapshot("fork") == kept
    changes = await manager.changed_files("repo-1", workspace.base.commit_id, kept.commit_id)
    assert [change.path for change in changes] == [b".gitignore", b"README", b"new"]

    base = await shared_parts.prepare(shared_remote, StartPoint(result_commit_id=kept.commit_id))
    fork = shared_parts.workspace(base)
    assert (fork.agent.path / "new").read_text() == "1"
    assert fork.agent.git("status", "--porcelain") == ""
    fork.agent.write({"new": "2"})
    again = await manager.snapshot_tree(spec(fork, "fork-of-a-fork"))
    assert again.base_commit_id == kept.commit_id
    assert store(shared_parts).files(again.commit_id)["new"] == "2"


COMMIT = ("-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "--quiet", "--all")


@pytest.mark.parametrize("commits", ["none", "some", "all"])
async def test_a_workspace_begins_as_the_one_that_the_snapshot_was_taken_of(
    shared_parts: GitParts, workspace: Workspace, shared_remote: Remote, commits: str
) -> None:
    """Its tree is the snapshot's, its HEAD where the agent left it, and its result is compared with the first base."""
    agent, first = workspace.agent, workspace.base.commit_id
    agent.write({"README": "one"})
    if commits != "none":
        agent.git(*COMMIT, "-m", "its own")
    head = agent.head()
    agent.write({"new": "2"} if commits != "all" else {})
    kept = await shared_parts.manager.snapshot_tree(spec(workspace, f"begin-{commits}"))

    base = await shared_parts.prepare(shared_remote, StartPoint(snapshot_id=kept.snapshot_id))
    assert (base.commit_id, base.head_commit_id) == (first, head)
    fork = shared_parts.workspace(base)
    await shared_parts.manager.create_branch(fork.tree, b"again", base.head_commit_id)
    assert fork.agent.head() == head
    assert fork.agent.git("diff", "--cached", kept.commit_id) == "", "what was not committed is staged"
    result = await shared_parts.manager.take_result("repo-1", f"begun-{commits}", fork.take_spec())
    assert (result.changed, result.agent_commits) == (True, commits != "none")
    assert store(shared_parts).files(result.commit_id) == store(shared_parts).files(kept.commit_id)
    assert store(shared_parts).head(f"{result.commit_id}{'' if commits == 'all' else '^'}") == head


@pytest.mark.slow
async def test_a_snapshot_of_what_began_from_one_goes_back_to_the_first_base(
    shared_parts: GitParts, workspace: Workspace, shared_remote: Remote
) -> None:
    """Also where the version before compared with the snapshot's own commit, and recorded that as a base."""
    first = workspace.base.commit_id
    for number, is_earlier in enumerate((False, False, True, True)):
        workspace.agent.write({f"file-{number}": "new"})
        kept = await shared_parts.manager.snapshot_tree(spec(workspace, f"chain-{number}"))
        base = await shared_parts.prepare(shared_remote, StartPoint(snapshot_id=kept.snapshot_id))
        assert base.commit_id == first
        workspace = shared_parts.workspace(replace(base, commit_id=kept.commit_id) if is_earlier else base)
        head = "" if is_earlier else base.head_commit_id
        await shared_parts.manager.create_branch(workspace.tree, b"again", head)
    result = await shared_parts.manager.take_result("repo-1", "chain", replace(workspace, base=base).take_spec())
    changes = await shared_parts.manager.changed_files("repo-1", first, result.commit_id)
    assert [change.path for change in changes] == [f"file-{number}".encode() for number in range(4)]


async def test_a_workspace_that_was_undone_is_a_snapshot_of_nothing(
    shared_parts: GitParts, workspace: Workspace, shared_remote: Remote
) -> None:
    workspace.agent.write({"new": "1"})
    await shared_parts.manager.snapshot_tree(spec(workspace, "to-undo"))
    fork = shared_parts.workspace(await shared_parts.prepare(shared_remote, StartPoint(snapshot_id="to-undo")))
    await shared_parts.manager.create_branch(fork.tree, b"again", fork.base.head_commit_id)
    fork.agent.git("reset", "--quiet", "--hard")
    undone = await shared_parts.manager.snapshot_tree(spec(fork, "undone"))
    assert undone.commit_id == undone.base_commit_id == workspace.base.commit_id
    base = await shared_parts.prepare(shared_remote, StartPoint(snapshot_id="undone"))
    assert (base.commit_id, base.head_commit_id) == (undone.base_commit_id, undone.base_commit_id)


async def test_a_workspace_begins_from_a_snapshot_of_its_own_repository(
    shared_parts: GitParts, workspace: Workspace, shared_remote: Remote
) -> None:
    await shared_parts.manager.snapshot_tree(spec(workspace, "of-repo-1"))
    for remote, snapshot_id in (
        (replace(shared_remote, repository_id="repo-2"), "of-repo-1"),
        (shared_remote, "no-such"),
    ):
        with pytest.raises(NotFound) as failure:
            await shared_parts.prepare(remote, StartPoint(snapshot_id=snapshot_id))
        assert failure.value.reason == "SNAPSHOT_NOT_FOUND"


async def test_the_same_id_is_the_same_snapshot_whatever_became_of_the_tree(
    shared_parts: GitParts, workspace: Workspace
) -> None:
    first = await shared_parts.manager.snapshot_tree(spec(workspace, "same"))
    assert first.commit_id == workspace.base.commit_id
    workspace.agent.write({"later": "1"})
    assert await shared_parts.manager.snapshot_tree(spec(workspace, "same")) == first
    with pytest.raises(RequestIdReused):
        await shared_parts.manager.snapshot_tree(spec(workspace, "same", "another message"))


async def test_snapshots_are_listed_by_pages_and_deleted(parts: GitParts, remote: Remote) -> None:
    workspace = parts.workspace(await parts.prepare(remote))
    for number in range(5):
        await parts.manager.snapshot_tree(spec(workspace, f"s-{number}"))
    assert await listed(parts, 2) == ["s-4", "s-3", "s-2", "s-1", "s-0"]
    await parts.manager.delete_snapshot("s-3")
    await parts.manager.delete_snapshot("s-3")
    assert "s-3" not in await listed(parts)
    with pytest.raises(NotFound) as failure:
        await parts.manager.snapshot("s-3")
    assert failure.value.reason == "SNAPSHOT_NOT_FOUND"


async def test_what_has_expired_goes_with_its_objects_and_nothing_else_does(
    parts: GitParts, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = parts.workspace(await parts.prepare(remote))
    workspace.agent.write({"noise": os.urandom(1000)})
    result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    workspace.agent.write({"more": os.urandom(1000)})
    gone = await parts.manager.snapshot_tree(spec(workspace, "goes"))
    now = datetime.now(UTC)
    assert await parts.manager.remove_expired(now) == []
    assert await parts.manager.remove_expired(now + timedelta(hours=2)) == ["goes"]
    assert store(parts).git("for-each-ref", "--format=%(refname)") == "refs/results/result-1"
    # Whoever was told of the commit may still be at work with it.
    store(parts).git("cat-file", "-e", gone.commit_id)
    monkeypatch.setattr("services.git.stores.results._UNNAMED_KEPT", "now")
    await parts.manager.remove_expired(now + timedelta(hours=20))
    store(parts).git("cat-file", "-e", gone.commit_id, code=1)
    assert store(parts).files(result.commit_id).keys() == {*FILES, "noise"}
    store(parts).git("fsck", "--strict")


async def test_a_stale_owner_keeps_and_deletes_nothing(parts: GitParts, remote: Remote) -> None:
    workspace = parts.workspace(await parts.prepare(remote))
    set_current_fence(Fence("job-1", 2))
    await parts.manager.snapshot_tree(spec(workspace, "mine"))
    set_current_fence(Fence("job-1", 1))
    for call in (parts.manager.snapshot_tree(spec(workspace, "late")), parts.manager.delete_snapshot("mine")):
        with pytest.raises(FailedPrecondition) as failure:
            await call
        assert failure.value.reason == "STALE_FENCE"
    assert await listed(parts) == ["mine"]
