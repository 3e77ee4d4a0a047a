"""Mirrors and base trees: fetched once, resolved as the remote has it, whole or not there."""

import asyncio
from pathlib import Path

import pytest
from boatyard.git.v1 import git_pb2 as pb

from services.common.errors import Exhausted, FailedPrecondition, NotFound
from services.common.lock import FileLock
from services.common.text import lossy
from services.git.model import Base, CloneSpec, Remote, StartPoint
from services.git.wire import to_proto
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo


async def test_a_base_is_a_clean_tree_over_the_mirror(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    base = await parts.prepare(remote)
    assert base.commit_id == upstream.head("main")
    assert base.branch == b"main"
    tree = Repo(base.layers[0])
    assert tree.git("status", "--porcelain") == ""
    assert tree.git("log", "--format=%s") == "second\nfirst"
    assert tree.git("config", "remote.origin.url") == remote.url
    assert not (base.layers[0] / ".git" / "hooks").exists()
    alternates = (base.layers[0] / ".git" / "objects" / "info" / "alternates").read_text().split()
    assert [Path(line) for line in alternates] == list(base.read_only_paths)
    index = (base.layers[0] / ".git" / "index").stat()
    newest = max(
        path.stat().st_mtime for path in base.layers[0].rglob("*") if path.is_file() and ".git" not in path.parts
    )
    assert int(index.st_mtime) > int(newest), "git would read this file at every status"


async def test_many_who_ask_at_once_share_one_fetch_and_one_tree(parts: GitParts, remote: Remote) -> None:
    bases = await asyncio.gather(*(parts.prepare(remote) for _ in range(8)))
    assert len({base.layers for base in bases}) == 1
    assert parts.git.ran["fetch"] == 1
    assert parts.git.ran["clone"] == 1
    assert list(parts.paths.scratch_root.iterdir()) == []


async def test_a_path_may_hold_spaces(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    spaced = upstream.path.with_name("up stream's.git")
    upstream.path.rename(spaced)
    parts.rules.enforce(pb.Remote(repository_id="r", url=str(spaced)))
    assert (await parts.prepare(Remote(remote.repository_id, str(spaced)))).commit_id == Repo(spaced).head("main")


async def test_a_known_commit_id_is_not_fetched_and_a_branch_is(
    parts: GitParts, remote: Remote, upstream: Repo
) -> None:
    first = await parts.prepare(remote)
    await parts.prepare(remote, StartPoint(first.commit_id.encode()))
    assert parts.git.ran["fetch"] == 1
    work = Repo(upstream.path.parent / "work")
    third = work.commit("third", {"a": "1"})
    work.git("push", "--quiet", str(upstream.path), "main")
    assert (await parts.prepare(remote)).commit_id == third
    assert parts.git.ran["fetch"] == 2


@pytest.mark.parametrize(
    ("revision", "names", "branch"),
    [
        (b"", "main", b"main"),
        (b"HEAD", "main", b"main"),
        (b"main", "main", b"main"),
        (b"refs/heads/main", "main", b"main"),
        (b"v1", "main~1", b"main"),
        (b"refs/tags/v1", "main~1", b"main"),
        (b"tags/v1", "main~1", b"main"),
        (b"heads/main", "main", b"main"),
        (b"refs/pull/7/head", "refs/pull/7/head", b"main"),
        (b"side/\xff", "main~1", b"side/\xff"),
    ],
)
async def test_revisions(
    parts: GitParts, remote: Remote, upstream: Repo, revision: bytes, names: str, branch: bytes
) -> None:
    upstream.git("update-ref", b"refs/heads/side/\xff", upstream.head("main~1"))
    upstream.git("update-ref", "refs/pull/7/head", upstream.git("commit-tree", "-m", "asked for", "main^{tree}"))
    base = await parts.prepare(remote, StartPoint(revision))
    assert (base.commit_id, base.branch) == (upstream.head(names), branch)


async def test_an_abbreviated_commit_id_is_found(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    whole = upstream.head("main~1")
    assert (await parts.prepare(remote, StartPoint(whole[:10].encode()))).commit_id == whole


async def test_a_commit_on_no_branch_is_asked_for(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    hidden = upstream.git("commit-tree", "-m", "a pull request", f"{upstream.head('main')}^{{tree}}")
    upstream.git("update-ref", "refs/pull/1/head", hidden)
    upstream.git("config", "uploadpack.allowAnySHA1InWant", "true")
    assert (await parts.prepare(remote, StartPoint(hidden.encode()))).commit_id == hidden


@pytest.mark.parametrize("revision", [b"nope", b"refs/heads/nope", b"0" * 40, b"abcdef0", b"refs/upstream/HEAD"])
async def test_an_unknown_revision_is_not_found(parts: GitParts, remote: Remote, revision: bytes) -> None:
    with pytest.raises(NotFound) as failure:
        await parts.prepare(remote, StartPoint(revision))
    assert failure.value.reason == "REVISION_NOT_FOUND"


async def test_a_ref_that_was_fetched_and_is_gone_is_not_found(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    upstream.git("update-ref", "refs/pull/1/head", "v1^{commit}")
    assert (await parts.prepare(remote, StartPoint(b"refs/pull/1/head"))).commit_id == upstream.head("v1")
    upstream.git("update-ref", "-d", "refs/pull/1/head")
    with pytest.raises(NotFound):
        await parts.prepare(remote, StartPoint(b"refs/pull/1/head"))


async def test_a_detached_remote_and_one_whose_head_leads_nowhere(parts: GitParts, tmp_path: Path) -> None:
    detached = Repo.sample(tmp_path / "detached")
    detached.git("checkout", "--quiet", "--detach", "HEAD~1")
    assert (await parts.prepare(Remote("repo-2", str(detached.path)))).commit_id == detached.head()
    dangling = Repo.sample(tmp_path / "other").bare_clone(tmp_path / "dangling.git")
    dangling.git("symbolic-ref", "HEAD", "refs/heads/nowhere")
    base = await parts.prepare(Remote("repo-3", str(dangling.path)))
    assert (base.commit_id, base.branch) == (dangling.head("main"), b"main")


async def test_a_repository_that_is_not_there_says_so(parts: GitParts, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="does not appear to be a git repository") as failure:
        await parts.prepare(Remote("repo-2", str(tmp_path / "gone")))
    assert failure.value.reason == "REMOTE_NOT_FOUND"
    assert not parts.paths.mirror("repo-2").exists()


async def test_leftovers_of_a_killed_git_do_not_matter(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    await parts.prepare(remote)
    mirror = parts.paths.mirror("repo-1")
    for leftover in ("packed-refs.lock", "HEAD.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x"):
        (mirror / leftover).parent.mkdir(parents=True, exist_ok=True)
        (mirror / leftover).touch()
    work = Repo(upstream.path.parent / "work")
    third = work.commit("third", {"a": "1"})
    work.git("push", "--quiet", str(upstream.path), "main")
    assert (await parts.prepare(remote)).commit_id == third


async def test_half_built_things_are_swept_at_the_start(parts: GitParts) -> None:
    (parts.paths.scratch() / "mirror.git").mkdir()
    parts.paths.make()
    assert list(parts.paths.scratch_root.iterdir()) == []


async def test_a_mirror_that_another_process_holds_is_waited_for(tmp_path: Path, remote: Remote) -> None:
    async with git_parts(tmp_path / "home", tmp_path, lock_seconds=0.2) as parts:
        lock = FileLock(parts.paths.mirror_lock("repo-1"))
        with pytest.raises(Exhausted) as failure:
            await parts.prepare(remote)
        assert failure.value.reason == "REPOSITORY_BUSY"
        lock.release()
        assert isinstance(await parts.prepare(remote), Base)


async def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path: Path, remote: Remote) -> None:
    async with git_parts(tmp_path / "home", tmp_path, min_free_bytes=1 << 60) as parts:
        for call in (parts.prepare(remote), parts.manager.clone(CloneSpec("clone-1", remote))):
            with pytest.raises(Exhausted) as failure:
                await call
            assert failure.value.reason == "DISK_FULL"
        assert parts.git.ran["fetch"] == 0


async def test_the_hosts_configuration_is_not_read(
    parts: GitParts, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    evil = tmp_path / "gitconfig"
    evil.write_text(f'[url "/nowhere/"]\n\tinsteadOf = /\n[core]\n\tfsmonitor = touch {canary}\n')
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, str(evil))
    for name in ("GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_INDEX_FILE", "GIT_EXEC_PATH", "GIT_SSH_COMMAND"):
        monkeypatch.setenv(name, "/nowhere")
    assert await parts.prepare(remote)
    assert not canary.exists()


async def test_refs_that_are_not_utf_8_do_no_harm(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    """They are mirrored like all others, and prepared as the default branch; no request can name them."""
    odd = b"refs/heads/b\xff"
    upstream.git("update-ref", odd, "main")
    assert (await parts.prepare(remote, StartPoint(b"main"))).branch == b"main"
    with pytest.raises(NotFound) as missing:
        await parts.prepare(remote, StartPoint(lossy(b"b\xff").encode()))
    assert missing.value.reason == "REVISION_NOT_FOUND"

    upstream.git("symbolic-ref", "HEAD", odd)
    base = to_proto.base_to_proto(await parts.prepare(remote)).base
    assert (base.branch, base.branch_is_lossy, base.commit_id) == ("b\ufffd", True, upstream.head("main"))
