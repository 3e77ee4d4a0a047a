"""A branch is moved only from where it was expected to be, and a push that was made already is a success."""

import asyncio
from pathlib import Path

import pytest

from services.common.errors import Aborted, FailedPrecondition, NotFound
from services.git.failures import clone_failed
from services.git.gitcmd import GitFailed, GitOutput
from services.git.model import Remote
from services.git.remote.publisher import _failure
from tests.kit.disks import fill, needs_mount, small_disk
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo

BRANCH = b"boatyard/job-1"


@pytest.fixture
async def result(parts: GitParts, remote: Remote) -> str:
    workspace = parts.workspace(await parts.prepare(remote))
    workspace.agent.write({"a": "1"})
    return (await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())).commit_id


async def test_a_result_is_pushed_once(parts: GitParts, remote: Remote, upstream: Repo, result: str) -> None:
    assert not await parts.manager.push(remote, result, BRANCH, "")
    assert upstream.head("boatyard/job-1") == result
    assert await parts.manager.push(remote, result, BRANCH, "")
    assert parts.git.ran["push"] == 1


async def test_a_branch_that_moved_is_left_alone(parts: GitParts, remote: Remote, upstream: Repo, result: str) -> None:
    elsewhere = upstream.head("main~1")
    upstream.git("update-ref", "refs/heads/boatyard/job-1", elsewhere)
    with pytest.raises(Aborted) as failure:
        await parts.manager.push(remote, result, BRANCH, "")
    assert (failure.value.reason, failure.value.expected, failure.value.actual) == ("REF_MOVED", "", elsewhere)
    assert upstream.head("boatyard/job-1") == elsewhere
    assert not await parts.manager.push(remote, result, BRANCH, elsewhere)
    assert upstream.head("boatyard/job-1") == result


async def test_of_two_at_once_one_wins(parts: GitParts, remote: Remote, upstream: Repo, result: str) -> None:
    other = parts.workspace(await parts.prepare(remote))
    other.agent.write({"b": "2"})
    second = (await parts.manager.take_result("repo-1", "result-2", other.take_spec())).commit_id
    outcomes = await asyncio.gather(
        *(parts.manager.push(remote, commit, BRANCH, "") for commit in (result, second)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Aborted", "bool"]
    assert upstream.head("boatyard/job-1") in {result, second}


async def test_a_branch_that_lies_below_another_is_not_taken_for_it(
    parts: GitParts, remote: Remote, upstream: Repo, result: str
) -> None:
    upstream.git("update-ref", "refs/heads/x/refs/heads/work", upstream.head("main"))
    assert not await parts.manager.push(remote, result, b"work", "")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = /srv/others.git\n'),
        (".lfsconfig", "[lfs]\n\turl = https://h.example/x\n"),
    ],
)
async def test_no_agent_says_first_from_where_submodules_come(
    parts: GitParts, remote: Remote, upstream: Repo, file: str, text: str
) -> None:
    workspace = parts.workspace(await parts.prepare(remote))
    workspace.agent.write({file: text})
    taken = (await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())).commit_id
    upstream.git("symbolic-ref", "HEAD", "refs/heads/nowhere")
    with pytest.raises(FailedPrecondition, match="let a person push this one") as failure:
        await parts.manager.push(remote, taken, b"nowhere", "")
    assert failure.value.reason == "PUSH_REJECTED"
    assert "nowhere" not in upstream.git("branch", "--list")
    upstream.git("symbolic-ref", "HEAD", "refs/heads/main")
    assert not await parts.manager.push(remote, taken, b"nowhere", "")


async def test_a_refusal_is_told_in_the_remotes_words(
    parts: GitParts, remote: Remote, upstream: Repo, result: str
) -> None:
    upstream.git("config", "transfer.hideRefs", "refs/heads/boatyard")
    with pytest.raises(FailedPrecondition, match="deny updating a hidden ref") as failure:
        await parts.manager.push(remote, result, BRANCH, "")
    assert failure.value.reason == "PUSH_REJECTED"


async def test_a_refusal_has_no_blanks_at_the_ends_of_its_lines(
    parts: GitParts, remote: Remote, upstream: Repo, result: str
) -> None:
    """Git fills up what a remote says: eight of them follow each line."""
    (upstream.path / "refs" / "heads" / "boatyard").write_text(f"{upstream.head('main')}\n")
    with pytest.raises(FailedPrecondition, match="cannot lock ref") as failure:
        await parts.manager.push(remote, result, BRANCH, "")
    assert [line for line in failure.value.message.splitlines() if line != line.rstrip()] == []


async def test_a_ref_that_is_locked_at_the_remote_is_pushed_once_it_is_not(
    parts: GitParts, remote: Remote, upstream: Repo, result: str
) -> None:
    lock = upstream.path / "refs" / "heads" / "boatyard" / "job-1.lock"
    lock.parent.mkdir()
    lock.touch()
    with pytest.raises(FailedPrecondition, match="File exists") as failure:
        await parts.manager.push(remote, result, BRANCH, "")
    assert failure.value.reason == "REMOTE_UNREACHABLE"
    lock.unlink()
    assert not await parts.manager.push(remote, result, BRANCH, "")


@pytest.mark.slow
@needs_mount
async def test_a_remote_whose_disk_is_full_is_pushed_to_once_it_has_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size="4m") as disk:
        upstream = Repo.sample(tmp_path / "work").bare_clone(disk / "repo.git")
        remote = Remote("repo-1", str(upstream.path))
        async with git_parts(tmp_path / "home", disk) as parts:
            workspace = parts.workspace(await parts.prepare(remote))
            workspace.agent.write({"a": "1"})
            result = (await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())).commit_id
            ballast = fill(disk)
            with pytest.raises(FailedPrecondition, match="No space left on device") as failure:
                await parts.manager.push(remote, result, BRANCH, "")
            assert failure.value.reason == "REMOTE_UNREACHABLE"
            ballast.unlink()
            assert not await parts.manager.push(remote, result, BRANCH, "")
            assert upstream.head(BRANCH.decode()) == result


UNPACKER, NOT_UPDATED, HOOK = "unpacker error", "failed to update ref", "pre-receive hook declined"


@pytest.mark.parametrize(
    ("why", "said", "reason"),
    [
        (UNPACKER, "remote: fatal: write error: Disk quota exceeded        ", "REMOTE_UNREACHABLE"),
        (UNPACKER, "error: remote unpack failed: unable to create temporary object directory", "REMOTE_UNREACHABLE"),
        (NOT_UPDATED, "remote: error: cannot update ref 'x': couldn't write '/r/x.lock'", "REMOTE_UNREACHABLE"),
        (NOT_UPDATED, "remote: error: unable to append to 'logs/x': Read-only file system", "REMOTE_UNREACHABLE"),
        (HOOK, "remote: GitLab: Internal API error (500).", "REMOTE_UNREACHABLE"),
        ("internal server error", "", "REMOTE_UNREACHABLE"),
        (NOT_UPDATED, "remote: fatal error in commit_refs", "REMOTE_UNREACHABLE"),
        (HOOK, "remote: CI has timed out: fix it", "PUSH_REJECTED"),
        (HOOK, "remote: error: GH006: Protected branch update failed", "PUSH_REJECTED"),
        ("protected branch", "remote: No space left on device", "PUSH_REJECTED"),
        (UNPACKER, "remote: fatal: fsck error in packed object", "PUSH_REJECTED"),
    ],
)
def test_only_what_a_remote_decides_is_final(why: str, said: str, reason: str) -> None:
    line = f"!\tHEAD:refs/heads/x\t[remote rejected] ({why})"
    output = GitOutput(1, f"To URL\n{line}\nDone\n".encode(), said)
    assert _failure(b"x", output).reason == reason


@pytest.mark.parametrize("full", ["No space left on device", "Disk quota exceeded"])
def test_whose_disk_is_full_is_told_apart(full: str) -> None:
    ours = GitFailed("fetch", 128, f"fatal: write error: {full}\nfatal: fetch-pack: invalid index-pack output")
    theirs = GitFailed("fetch", 128, f"remote: fatal: unable to create thread: {full}\nfatal: early EOF")
    assert clone_failed("repo-1", ours).reason == "DISK_FULL"
    assert clone_failed("repo-1", theirs).reason == "REMOTE_UNREACHABLE"


async def test_a_remote_that_is_gone_is_a_refusal(
    parts: GitParts, remote: Remote, upstream: Repo, result: str, tmp_path: Path
) -> None:
    upstream.path.rename(tmp_path / "moved.git")
    with pytest.raises(FailedPrecondition) as failure:
        await parts.manager.push(remote, result, BRANCH, "")
    assert failure.value.reason == "REMOTE_NOT_FOUND"


async def test_only_what_is_stored_can_be_pushed(parts: GitParts, remote: Remote, result: str) -> None:
    with pytest.raises(NotFound, match="revision"):
        await parts.manager.push(remote, "1" * 40, BRANCH, "")
    with pytest.raises(NotFound, match="repository"):
        await parts.manager.push(Remote("other", remote.url), result, BRANCH, "")
