"""What a server over HTTP does wrong has its reason, at each point of a fetch and of a push; nothing is half done."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Final

import pytest
from _pytest.mark import ParameterSet

from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.git.model import Remote, StartPoint
from tests.kit.githttp import Fault, GitServer, git_server
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo

TOKEN: Final = "canary-token"
REFS, FETCH = "GET /repo.git/info/refs?service=git-upload-pack", "POST /repo.git/git-upload-pack"
PUSH_REFS, PUSH = "GET /repo.git/info/refs?service=git-receive-pack", "POST /repo.git/git-receive-pack"

ANYWHERE: Final = {
    "moved": ("https://git.example/new{path}", "REMOTE_MOVED"),
    "moved for good": (301, "REMOTE_MOVED"),
    "wants a login": (401, "REMOTE_ACCESS_DENIED"),
    "forbidden": (403, "REMOTE_ACCESS_DENIED"),
    "gone": (410, "REMOTE_NOT_FOUND"),
    "not found": (404, "REMOTE_NOT_FOUND"),
    "busy": (429, "REMOTE_UNREACHABLE"),
    "broken": (500, "REMOTE_UNREACHABLE"),
    "away": (503, "REMOTE_UNREACHABLE"),
    "drops": ("drop", "REMOTE_UNREACHABLE"),
    "is cut": ("cut", "REMOTE_UNREACHABLE"),
}
FIRST: Final = ANYWHERE | {
    "sends to a page for signing in": ("/users/sign_in", "REMOTE_NOT_GIT"),
    "is a page": ("page", "REMOTE_NOT_GIT"),
}
LATER: Final = ("away", "drops", "is cut")


SOON: Final = ("moved", "wants a login", "away", "is a page")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    root = tmp_path_factory.mktemp("served")
    Repo.sample(root / "work").bare_clone(root / "repo.git")
    with git_server(root, TOKEN) as server:
        server.records_processes = False
        yield server


@pytest.fixture
def failing(server: GitServer) -> Iterator[GitServer]:
    yield server
    server.faults.clear()


@pytest.fixture(scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path_factory.mktemp("home"), allow_loopback_http=True) as parts:
        yield parts


@pytest.fixture(scope="module")
async def result(parts: GitParts, server: GitServer) -> str:
    workspace = parts.workspace(await parts.prepare(Remote("pushed", server.url("repo.git"), TOKEN)))
    workspace.agent.write({"a": "1"})
    return (await parts.manager.take_result("pushed", "result-1", workspace.take_spec())).commit_id


def faults(points: Mapping[str, Iterable[str]]) -> list[ParameterSet]:
    """Return the faults at each point of a conversation: (point, what the server does, the reason)."""
    return [
        pytest.param(at, *FIRST[name], id=f"{at.split()[0]} {name}", marks=() if name in SOON else pytest.mark.slow)
        for at, names in points.items()
        for name in names
    ]


@pytest.mark.parametrize(("at", "does", "reason"), faults({REFS: FIRST, FETCH: LATER}))
async def test_a_fetch(parts: GitParts, failing: GitServer, at: str, does: int | str, reason: str) -> None:
    remote = Remote(new_id("repo"), failing.url("repo.git"), TOKEN)
    failing.faults.append(Fault(at, does))
    with pytest.raises(FailedPrecondition) as failure:
        await parts.prepare(remote)
    assert failure.value.reason == reason, failure.value
    assert not parts.paths.mirror(remote.repository_id).exists()
    assert list(parts.paths.scratch_root.iterdir()) == []


async def test_a_server_that_goes_away_has_said_nothing_of_a_ref(parts: GitParts, failing: GitServer) -> None:
    remote, upstream = Remote(new_id("repo"), failing.url("repo.git"), TOKEN), Repo(failing.root / "repo.git")
    upstream.git("update-ref", "refs/pull/7/head", "v1^{commit}")
    start = StartPoint(b"refs/pull/7/head")
    assert (await parts.prepare(remote, start)).commit_id == upstream.head("v1")
    upstream.git("update-ref", "refs/pull/7/head", "main")
    told: list[str] = []
    while upstream.head("main") not in told:
        failing.faults[:] = [Fault("", 503, after=len(told))]
        try:
            told.append((await parts.prepare(remote, start)).commit_id)
        except FailedPrecondition as failure:
            told.append(failure.reason)
    assert len(told) > 3
    assert set(told[:-1]) == {"REMOTE_UNREACHABLE"}


async def test_where_a_repository_has_moved_to_is_said(parts: GitParts, failing: GitServer) -> None:
    failing.faults.append(Fault(REFS, "https://user:secret@git.example/new{path}"))
    with pytest.raises(FailedPrecondition, match=r"has moved to https://git\.example/new/repo\.git") as failure:
        await parts.prepare(Remote(new_id("repo"), failing.url("repo.git"), TOKEN))
    assert "secret" not in str(failure.value)


async def test_a_page_for_signing_in_is_named_without_what_it_is_asked(parts: GitParts, failing: GitServer) -> None:
    failing.faults.append(Fault(REFS, "https://login.example/sso?state=secret"))
    with pytest.raises(FailedPrecondition, match=r"page, as for signing in: https://login\.example/sso$") as failure:
        await parts.prepare(Remote(new_id("repo"), failing.url("repo.git"), TOKEN))
    assert failure.value.reason == "REMOTE_NOT_GIT"
    assert "failed with code" not in str(failure.value)


@pytest.mark.parametrize(("at", "does", "reason"), faults({PUSH_REFS: ANYWHERE, PUSH: ("away", "drops")}))
async def test_a_push(parts: GitParts, failing: GitServer, result: str, at: str, does: int | str, reason: str) -> None:
    remote, branch = Remote("pushed", failing.url("repo.git"), TOKEN), new_id("job").encode()
    failing.faults.append(Fault(at, does))
    with pytest.raises(FailedPrecondition) as failure:
        await parts.manager.push(remote, result, branch, "")
    assert failure.value.reason == reason, failure.value
    failing.faults.clear()
    assert not await parts.manager.push(remote, result, branch, "")
    assert Repo(failing.root / "repo.git").head(branch.decode()) == result


@pytest.mark.parametrize("does", ["lose", "cut"])
async def test_a_push_whose_answer_is_lost_is_found_to_have_been_made(
    parts: GitParts, failing: GitServer, result: str, does: str
) -> None:
    branch = new_id("job").encode()
    failing.faults.append(Fault(PUSH, does))
    await parts.manager.push(Remote("pushed", failing.url("repo.git"), TOKEN), result, branch, "")
    assert Repo(failing.root / "repo.git").head(branch.decode()) == result
