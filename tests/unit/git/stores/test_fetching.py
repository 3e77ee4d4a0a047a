"""One fetch for everybody who needs it: counted at a real git server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.git.model import Remote, StartPoint
from tests.kit.githttp import GitServer, git_server
from tests.kit.gitservice import git_parts
from tests.kit.repos import Repo


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path / "served", "token") as server:
        yield server


def fetches(server: GitServer) -> int:
    """How often somebody began to fetch: git lists the refs once for `ls-remote`, and once for `fetch`."""
    listings = [path for path in server.requests if "/info/refs" in path]
    assert len(listings) % 2 == 0
    return len(listings) // 2


@pytest.mark.parametrize(
    ("many", "unknown"), [(20, 4), pytest.param(100, 20, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_many_at_once_of_whom_some_want_what_is_not_fetched_yet(
    tmp_path: Path, server: GitServer, many: int, unknown: int
) -> None:
    work = Repo.sample(tmp_path / "work")
    upstream = work.bare_clone(tmp_path / "served" / "repo.git")
    remote = Remote("repo-1", server.url("repo.git"), "token")
    async with git_parts(tmp_path / "home", allow_loopback_http=True) as parts:
        known = await parts.prepare(remote)
        new = [work.commit(f"number {number}", {"counter": str(number)}) for number in range(unknown)]
        work.git("push", "--quiet", str(upstream.path), "main")
        server.requests.clear()
        commits = [*new, *[known.commit_id] * (many - unknown)]
        bases = await asyncio.gather(*(parts.prepare(remote, StartPoint(commit.encode())) for commit in commits))
        assert [base.commit_id for base in bases] == commits
        assert fetches(server) == 1
        for number, base in enumerate(bases[:unknown]):
            assert (base.layers[0] / "counter").read_text() == str(number)
        assert parts.git.ran["checkout"] == unknown + 1


async def test_who_asks_for_a_branch_during_a_fetch_gets_what_was_pushed_meanwhile(
    tmp_path: Path, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Repo.sample(tmp_path / "work")
    upstream = work.bare_clone(tmp_path / "served" / "repo.git")
    remote = Remote("repo-1", server.url("repo.git"), "token")
    packs = asyncio.Event()
    loop = asyncio.get_running_loop()
    record_processes = server.record_processes

    def hold_the_pack(path: str) -> None:
        record_processes(path)
        if [asked.endswith("/git-upload-pack") for asked in server.requests].count(True) == 3:
            server.may_answer.clear()
            loop.call_soon_threadsafe(packs.set)

    async with git_parts(tmp_path / "home", allow_loopback_http=True) as parts:
        await parts.prepare(remote)
        early_commit = work.commit("third", {"a": "1"})
        work.git("push", "--quiet", str(upstream.path), "main")
        server.requests.clear()
        monkeypatch.setattr(server, "record_processes", hold_the_pack)
        early = asyncio.create_task(parts.prepare(remote))
        await packs.wait()  # the refs have been listed
        pushed = work.commit("fourth", {"a": "2"})
        work.git("push", "--quiet", str(upstream.path), "main")
        late = [asyncio.create_task(parts.prepare(remote)) for _ in range(5)]
        await asyncio.sleep(0)
        monkeypatch.undo()
        server.may_answer.set()
        assert (await early).commit_id == early_commit
        assert {base.commit_id for base in await asyncio.gather(*late)} == {pushed}
        assert fetches(server) == 2
