"""A token reaches the server that it is for, and is found nowhere else."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.errors import FailedPrecondition, NotFound
from services.git.model import CloneSpec, Remote
from tests.kit.githttp import GitServer, git_server
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo

TOKEN = "canary-8f1d2e3c4b5a"


@pytest.fixture
def server(tmp_path: Path):
    root = tmp_path / "served"
    Repo.sample(tmp_path / "work").bare_clone(root / "repo.git").git("config", "http.receivepack", "true")
    with git_server(root, TOKEN) as server:
        yield server


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path / "home", allow_loopback_http=True) as parts:
        yield parts


def found_in(directory: Path, *needles: bytes) -> list[Path]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return [path for path in files if any(needle in path.read_bytes() for needle in needles)]


async def test_the_token_is_found_nowhere(parts: GitParts, server: GitServer, tmp_path: Path) -> None:
    remote = Remote("repo-1", server.url("repo.git"), TOKEN)
    base = await parts.prepare(remote)
    workspace = parts.workspace(base)
    workspace.agent.write({"a": "1"})
    result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    assert not await parts.manager.push(remote, result.commit_id, b"work", "")
    await parts.manager.clone(CloneSpec("clone-1", remote))
    assert Repo(server.root / "repo.git").head("work") == result.commit_id
    encoded = base64.b64encode(f"x-access-token:{TOKEN}".encode())
    assert found_in(tmp_path / "home", TOKEN.encode(), encoded) == []
    assert TOKEN.encode() not in server.command_lines
    assert encoded not in server.command_lines
    assert b"git" in server.command_lines, "the server saw no process at all"
    assert server.holders, "the server saw no environment at all"
    assert all(name.startswith("git") for name in server.holders)
    assert found_in(workspace.tree.path, TOKEN.encode(), encoded) == []
    assert TOKEN not in repr(remote)


@pytest.mark.parametrize("token", ["", "wrong-canary"])
async def test_a_refused_token_is_not_in_the_error(parts: GitParts, server: GitServer, token: str) -> None:
    with pytest.raises(FailedPrecondition) as failure:
        await parts.prepare(Remote("repo-1", server.url("repo.git"), token))
    assert failure.value.reason == "REMOTE_ACCESS_DENIED"
    said = f"{failure.value} {failure.value.metadata} {failure.value.__cause__!r}"
    assert not token or token not in said


async def test_an_unknown_branch_of_a_clone(parts: GitParts, server: GitServer) -> None:
    remote = Remote("repo-1", server.url("repo.git"), TOKEN)
    with pytest.raises(NotFound):
        await parts.manager.clone(CloneSpec("clone-1", remote, branch=b"nope"))
    clone = await parts.manager.clone(CloneSpec("clone-2", remote, branch=b"main", depth=1))
    assert Repo(clone.path).git("log", "--format=%s") == "second"
    assert clone.commit_id == Repo(server.root / "repo.git").head("main")


async def test_whoever_waits_can_leave_and_the_last_one_ends_git(parts: GitParts, server: GitServer) -> None:
    remote = Remote("repo-1", server.url("repo.git"), TOKEN)
    server.may_answer.clear()
    waiting = [asyncio.create_task(parts.prepare(remote)) for _ in range(2)]
    assert await asyncio.to_thread(server.asked.wait, 20)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert not waiting[1].done()
    waiting[1].cancel()
    await asyncio.wait(waiting)
    server.may_answer.set()
    # Nothing holds the mirror any more, and nothing of it was kept.
    assert not parts.paths.mirror("repo-1").exists()
    assert (await parts.prepare(remote)).commit_id == Repo(server.root / "repo.git").head("main")


def leftovers(repository: Path) -> list[Path]:
    return [path for pattern in ("*.lock", "tmp_*", "incoming-*") for path in repository.rglob(pattern)]


async def given_up_half_way(server: GitServer, work: asyncio.Task[object]) -> None:
    """Cancel work when the server has what was sent, and has not answered."""
    assert await asyncio.to_thread(server.asked.wait, 60)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    server.may_answer.set()


async def test_a_fetch_and_a_push_that_are_given_up_half_way_leave_no_lock(
    parts: GitParts, server: GitServer, tmp_path: Path
) -> None:
    remote = Remote("repo-1", server.url("repo.git"), TOKEN)
    workspace = parts.workspace(await parts.prepare(remote))
    work = Repo(tmp_path / "work")
    third = work.commit("third", {"noise": os.urandom(100_000)})
    work.git("push", "--quiet", str(server.root / "repo.git"), "main")
    server.held_method = "POST"
    server.asked.clear()
    server.may_answer.clear()
    await given_up_half_way(server, asyncio.create_task(parts.prepare(remote)))
    assert leftovers(parts.paths.mirror("repo-1")) == []
    assert (await parts.prepare(remote)).commit_id == third

    workspace.agent.write({"more": os.urandom(100_000)})
    result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    server.asked.clear()
    server.may_answer.clear()
    push = parts.manager.push(remote, result.commit_id, b"work", "")
    await given_up_half_way(server, asyncio.create_task(push))
    assert leftovers(parts.paths.result_store("repo-1")) == []
    # The server may have carried out what it had been sent.
    await parts.manager.push(remote, result.commit_id, b"work", "")
    assert Repo(server.root / "repo.git").head("work") == result.commit_id
