"""What an agent makes of files in Git LFS: pointers in the result, contents on the server before the branch moves."""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.errors import Exhausted, FailedPrecondition, ServiceError
from services.common.ids import new_id
from services.git.model import Base, Remote, ResultCommit, SnapshotSpec, StartPoint
from tests.kit.githttp import Fault, GitServer, git_server
from tests.kit.gitservice import GitParts, LayeredWorkspace, git_parts
from tests.kit.lfs import LfsServer, pointer_to
from tests.kit.repos import Repo

RULES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
OLD, NEW = b"old\n" * 500, b"new\n"
WAYS = ("stacked", pytest.param("copied", marks=pytest.mark.slow))


class Served:
    """A repository with files in Git LFS, its servers, and a base of it."""

    parts: GitParts
    server: GitServer
    lfs: LfsServer
    remote: Remote
    base: Base
    has_layers: bool

    async def workspace(self, base: Base | None = None) -> LayeredWorkspace:
        base = base or self.base
        if not self.has_layers:
            return LayeredWorkspace(self.parts.workspace(base).tree, base)
        return await self.parts.layered(base, mounted=False)

    async def take(self, workspace: LayeredWorkspace, *, git_lfs: bool = True) -> ResultCommit:
        spec = replace(workspace.take_spec(), git_lfs=git_lfs)
        return await self.parts.manager.take_result("repo-1", new_id("result"), spec)

    async def push(self, commit_id: str, branch: bytes = b"work") -> None:
        await self.parts.manager.push(self.remote, commit_id, branch, "")

    def files(self, commit_id: str) -> dict[str, bytes]:
        store = self.parts.paths.result_store("repo-1")
        names = Repo(store).git("ls-tree", "-r", "--name-only", commit_id).splitlines()
        show = ["git", f"--git-dir={store}", "cat-file", "blob"]
        return {
            name: subprocess.run([*show, f"{commit_id}:{name}"], capture_output=True, check=True).stdout
            for name in names
            if name.endswith(".bin")
        }


@pytest.fixture
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """With layers, unless a test wants copies."""
    async with serve(tmp_path, layers=getattr(request, "param", "stacked") == "stacked") as each:
        yield each


@asynccontextmanager
async def serve(place: Path, **settings: object) -> AsyncIterator[Served]:
    served = Served()
    served.lfs, served.has_layers = LfsServer(), bool(settings.get("layers", True))
    work = Repo.sample(place / "work")
    pointers = {path: served.lfs.add(OLD + path.encode()).text.decode() for path in ("a.bin", "in/b.bin")}
    work.commit("files", {".gitattributes": RULES, **pointers})
    work.bare_clone(place / "served" / "app.git").git("config", "http.receivepack", "true")
    with git_server(place / "served", "the-token") as server:
        server.lfs, server.records_processes = served.lfs, False
        async with git_parts(place / "home", allow_loopback_http=True, **settings) as parts:
            served.parts, served.server = parts, server
            served.remote = Remote("repo-1", server.url("app"), "the-token")
            served.base = await parts.prepare(served.remote, StartPoint(git_lfs=True))
            yield served


WRITES = "printf 'new\\n' > a.bin; printf 'new\\n' > c.bin; mkdir -p d; echo more > d/e.bin; rm in/b.bin; : > f.bin"


@pytest.mark.parametrize("served", WAYS, indirect=True)
async def test_contents_become_pointers_and_are_on_the_server_before_the_branch(served: Served) -> None:
    workspace = await served.workspace()
    await workspace.agent(WRITES)
    result = await served.take(workspace)
    new, more = pointer_to(NEW), pointer_to(b"more\n")
    expected = {"a.bin": new.text, "c.bin": new.text, "d/e.bin": more.text, "f.bin": b""}
    assert (result.caveats, served.files(result.commit_id)) == ((), expected)
    served.server.faults.append(Fault("git-receive-pack", 503))
    with pytest.raises(ServiceError):
        await served.push(result.commit_id)
    assert {new.oid, more.oid} <= served.lfs.objects.keys()  # a branch whose push has failed names nothing
    assert served.lfs.verified == {new.oid, more.oid}
    served.server.faults.clear()
    await served.push(result.commit_id)
    assert Repo(served.server.root / "app.git").head("work") == result.commit_id
    # What the next job, or a check, finds is what the agent has written.
    base = await served.parts.prepare(served.remote, StartPoint(result_commit_id=result.commit_id, git_lfs=True))
    assert next((layer / "c.bin").read_bytes() for layer in base.layers if (layer / "c.bin").exists()) == NEW
    assert base.caveats == ()


@pytest.mark.slow
@pytest.mark.parametrize("served", WAYS, indirect=True)
async def test_where_nothing_is_changed_nothing_is(served: Served) -> None:
    workspace = await served.workspace()
    await workspace.agent("touch a.bin; cp in/b.bin x; rm in/b.bin; mv x in/b.bin; git status")
    result = await served.take(workspace)
    assert (result.commit_id, result.caveats) == (served.base.commit_id, ())


@pytest.mark.slow
async def test_an_agents_own_commits_have_pointers(served: Served) -> None:
    workspace = await served.workspace()
    await workspace.agent("printf 'new\\n' > a.bin; git add -A; git commit -qm mine; git status --porcelain | wc -l")
    result = await served.take(workspace)
    assert (result.agent_commits, result.caveats) == (1, ())
    assert served.files(result.commit_id)["a.bin"] == pointer_to(NEW).text
    await served.push(result.commit_id)
    assert pointer_to(NEW).oid in served.lfs.objects


@pytest.mark.slow
async def test_what_only_an_agents_earlier_commits_have_is_brought_too(served: Served) -> None:
    workspace = await served.workspace()
    commit = "git add -A; git commit -qm"
    await workspace.agent(
        f"echo 1 > c.bin; {commit} 1; echo 2 > c.bin; echo 3 > d.bin; {commit} 2; rm c.bin; {commit} 3"
    )
    gone, other = pointer_to(b"2\n"), pointer_to(b"1\n")
    await workspace.agent(f"echo forged > .git/lfs/objects/{gone.oid[:2]}/{gone.oid[2:4]}/{gone.oid}")
    result = await served.take(workspace)
    assert result.agent_commits == 3
    await served.push(result.commit_id)
    assert {other.oid, pointer_to(b"3\n").oid} <= served.lfs.objects.keys()
    assert gone.oid not in served.lfs.objects


@pytest.mark.slow
async def test_a_snapshots_contents_are_gone_on_with(served: Served) -> None:
    workspace = await served.workspace()
    await workspace.agent("printf 'new\\n' > c.bin")
    spec = SnapshotSpec(
        new_id("snapshot"), "repo-1", workspace.tree, served.base.commit_id, "what was left", git_lfs=True
    )
    snapshot = await served.parts.manager.snapshot_tree(spec)
    base = await served.parts.prepare(served.remote, StartPoint(snapshot_id=snapshot.snapshot_id, git_lfs=True))
    again = await served.workspace(base)
    assert await again.agent("cat c.bin; git status --porcelain; echo text > words") == "new\n"
    result = await served.take(again)
    assert served.files(result.commit_id)["c.bin"] == pointer_to(NEW).text
    await served.push(result.commit_id)
    assert pointer_to(NEW).oid in served.lfs.objects


@pytest.mark.slow
async def test_without_it_a_file_is_said_to_be_one(served: Served) -> None:
    base = await served.parts.prepare(served.remote)
    workspace = await served.workspace(base)
    await workspace.agent("printf 'new\\n' > c.bin")
    result = await served.take(workspace, git_lfs=False)
    assert [(each.kind, each.paths) for each in result.caveats] == [(CaveatKind.LFS_FILES, (b"c.bin",))]
    assert served.files(result.commit_id)["c.bin"] == NEW


REFUSALS = {
    "no rights": ([Fault("/objects/batch", 403)], {}, "REMOTE_ACCESS_DENIED"),
    "busy for long": ([Fault("/objects/batch", 503)], {}, "REMOTE_UNREACHABLE"),
    "broken off": ([Fault("PUT /contents", "drop")], {}, "REMOTE_UNREACHABLE"),
    "no room": ([Fault("PUT /contents", 507)], {}, "PUSH_REJECTED"),
    "too large": ([], {"refused": {pointer_to(NEW).oid: "too large"}}, "PUSH_REJECTED"),
    "no Git LFS": ([Fault("/objects/batch", 404)], {}, "PUSH_REJECTED"),
    "expired": ([], {"expired": 10}, "REMOTE_ACCESS_DENIED"),
    "elsewhere": ([], {"elsewhere": "http://192.168.7.7"}, "PUSH_REJECTED"),
}
PASSES = {
    "busy once": ([Fault("/objects/batch", 429, times=1, retry_after=1)], {}),
    "broken off once": ([Fault("PUT /contents", "drop", times=1)], {}),
    "expired once": ([], {"expired": 1}),
    "by login": ([], {"by_login": True, "without_verify": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REFUSALS, *PASSES])
async def test_a_server_that_refuses_leaves_the_branch_and_the_result(served: Served, name: str) -> None:
    workspace = await served.workspace()
    await workspace.agent("printf 'new\\n' > c.bin")
    result = await served.take(workspace)
    faults, odd = REFUSALS[name][:2] if name in REFUSALS else PASSES[name]
    served.server.faults.extend(faults)
    before = {key: getattr(served.lfs, key) for key in odd}
    for key, value in odd.items():
        setattr(served.lfs, key, value)
    app = Repo(served.server.root / "app.git")
    if name in REFUSALS:
        with pytest.raises(ServiceError) as refused:
            await served.push(result.commit_id)
        assert refused.value.reason == REFUSALS[name][2]
        assert "Git LFS" in str(refused.value)
        assert "signature" not in str(refused.value)
        assert "work" not in app.git("branch", "--list", "work")
        served.server.faults.clear()
        for key, value in before.items():
            setattr(served.lfs, key, value)
    await served.push(result.commit_id)
    assert app.head("work") == result.commit_id
    assert served.lfs.objects[pointer_to(NEW).oid] == NEW


@pytest.mark.slow
async def test_contents_are_bounded(tmp_path: Path) -> None:
    async with serve(tmp_path, lfs_max_bytes=4096, max_result_bytes=1 << 20) as served:
        workspace = await served.workspace()
        await workspace.agent("head -c 3000000 /dev/zero > c.bin")
        with pytest.raises(FailedPrecondition) as refused:
            await served.take(workspace)
        assert refused.value.reason == "RESULT_TOO_LARGE"
        assert list(served.parts.paths.scratch_root.iterdir()) == []


@pytest.mark.slow
async def test_what_nothing_names_any_more_is_removed(served: Served) -> None:
    """And what something names is not, however old it is."""
    snapshots = []
    for content in ("first", "second"):
        workspace = await served.workspace()
        await workspace.agent(f"printf {content} > c.bin")
        spec = SnapshotSpec(new_id("snapshot"), "repo-1", workspace.tree, served.base.commit_id, "x", git_lfs=True)
        snapshots.append(await served.parts.manager.snapshot_tree(spec))
    old = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    for path in served.parts.paths.result_store("repo-1").rglob("*"):
        os.utime(path, (old, old))
    await served.parts.manager.delete_snapshot(snapshots[0].snapshot_id)
    await served.parts.manager.remove_expired(datetime.now(UTC) + timedelta(hours=13))
    left = {path.name for path in served.parts.paths.result_lfs("repo-1").glob("??/*")}
    assert left == {pointer_to(b"second").oid}


@pytest.mark.slow
async def test_what_was_fetched_is_counted_with_its_mirror_and_goes_with_it(tmp_path: Path) -> None:
    async with serve(tmp_path, base_grace_seconds=0) as served:
        budget, fetched = served.parts.manager.budget, served.parts.paths.fetched_lfs("repo-1")
        before = (await budget.usage()).repositories[0].mirror_bytes
        (fetched / "00").mkdir(exist_ok=True)
        (fetched / "00" / "another").write_bytes(bytes(1 << 20))
        assert (await budget.usage()).repositories[0].mirror_bytes >= before + (1 << 20)
        with pytest.raises(Exhausted):
            await budget.make_room(1 << 60)
        assert not fetched.exists()
        base = await served.parts.prepare(served.remote, StartPoint(git_lfs=True))
        assert base.caveats == ()
