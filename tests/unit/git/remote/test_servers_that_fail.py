"""What a server over HTTP does wrong has its reason, at each point of a fetch and of a push; nothing is half done."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from _pytest.mark import ParameterSet

from services.common.errors import FailedPrecondition, NotFound
from services.common.ids import new_id
from services.git.model import Remote, StartPoint
from services.git.remote.addresses import AddressBook
from services.git.remote.bounds import NetworkLimits
from services.git.remote.file_repository import FileRoots
from services.git.remote.publisher import Publisher
from tests.kit.githttp import Fault, GitServer, git_server
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo

TOKEN: Final = "canary-token"
REFS, FETCH = "GET /repo.git/info/refs?service=git-upload-pack", "POST /repo.git/git-upload-pack"
PUSH_REFS, PUSH = "GET /repo.git/info/refs?service=git-receive-pack", "POST /repo.git/git-receive-pack"
MOVED: Final = "https://git.example/new{path}"
SILENT: Final = "in which nothing came or went"

# The requests of a fetch in their order: ls-remote makes the first two, and fetch the others. (what, how many before)
OF_FETCH: Final = {
    "first": (REFS, 0),
    "the refs": (FETCH, 0),
    "again": (REFS, 1),
    "the refs again": (FETCH, 1),
    "the pack": (FETCH, 2),
}
OF_PUSH: Final = {
    "first": (REFS, 0),
    "the refs": (FETCH, 0),
    "whether it may push": (PUSH_REFS, 0),
    "the pack": (PUSH, 0),
}
# What a server does at any of them.
ANYWHERE: Final[Mapping[str, tuple[Fault, str]]] = {
    "moved": (Fault("", MOVED), "REMOTE_MOVED"),
    "moved for good": (Fault("", MOVED, code=301), "REMOTE_MOVED"),
    "moved for now": (Fault("", MOVED, code=307), "REMOTE_MOVED"),
    "moved nowhere": (Fault("", 301), "REMOTE_MOVED"),
    "wants a login": (Fault("", 401), "REMOTE_ACCESS_DENIED"),
    "forbidden": (Fault("", 403), "REMOTE_ACCESS_DENIED"),
    "not found": (Fault("", 404), "REMOTE_NOT_FOUND"),
    "gone": (Fault("", 410), "REMOTE_NOT_FOUND"),
    "busy": (Fault("", 429, retry_after=30), "REMOTE_UNREACHABLE"),
    "broken": (Fault("", 500), "REMOTE_UNREACHABLE"),
    "away": (Fault("", 503), "REMOTE_UNREACHABLE"),
    "drops": (Fault("", "drop"), "REMOTE_UNREACHABLE"),
    "ends after its headers": (Fault("", "headers"), "REMOTE_UNREACHABLE"),
    "is cut": (Fault("", "cut"), "REMOTE_UNREACHABLE"),
    "sends to a page for signing in": (Fault("", "/users/sign_in"), "REMOTE_NOT_GIT"),
    "is a page": (Fault("", "page"), "REMOTE_NOT_GIT"),
}
LOST: Final = ("lose", "headers", "cut")
SOON: Final = {
    *(("first", name) for name in ("moved", "wants a login", "is a page")),
    *(("the pack", name) for name in ("away", "drops")),
}


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


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path / "home", allow_loopback_http=True, silence_seconds=0.5) as parts:
        yield parts


@pytest.fixture(scope="module")
async def result(parts: GitParts, server: GitServer) -> str:
    workspace = parts.workspace(await parts.prepare(Remote("pushed", server.url("repo.git"), TOKEN)))
    workspace.agent.write({"a": "1"})
    return (await parts.manager.take_result("pushed", "result-1", workspace.take_spec())).commit_id


def faults(points: Mapping[str, tuple[str, int]]) -> list[ParameterSet]:
    """Return each fault at each point of a conversation, and its reason."""
    return [
        pytest.param(
            replace(fault, at=at, after=after),
            reason,
            id=f"{point}: {name}",
            marks=() if (point, name) in SOON else pytest.mark.slow,
        )
        for point, (at, after) in points.items()
        for name, (fault, reason) in ANYWHERE.items()
        if at != PUSH or fault.does not in LOST  # those pushes are made
    ]


@pytest.mark.parametrize(("fault", "reason"), faults(OF_FETCH))
async def test_a_fetch(parts: GitParts, failing: GitServer, fault: Fault, reason: str) -> None:
    remote = Remote(new_id("repo"), failing.url("repo.git"), TOKEN)
    failing.faults.append(fault)
    with pytest.raises(FailedPrecondition) as failure:
        await parts.prepare(remote)
    assert failure.value.reason == reason, failure.value
    assert not parts.paths.mirror(remote.repository_id).exists()
    assert list(parts.paths.scratch_root.iterdir()) == []


@pytest.mark.parametrize(
    ("at", "after", "does"),
    [
        pytest.param(at, after, does, id=f"{point}: {does}", marks=() if does in now else pytest.mark.slow)
        for point, (at, after) in OF_FETCH.items()
        for now in [("stall",) if point == "the pack" else ()]
        for does in ("hang", "stall")
    ],
)
async def test_a_fetch_from_a_server_that_falls_silent(
    impatient: GitParts, failing: GitServer, at: str, after: int, does: str
) -> None:
    failing.faults.append(Fault(at, does, after=after))
    with pytest.raises(FailedPrecondition, match=SILENT) as failure:
        await impatient.prepare(Remote(new_id("repo"), failing.url("repo.git"), TOKEN))
    assert failure.value.reason == "REMOTE_UNREACHABLE"
    assert list(impatient.paths.scratch_root.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("at", "does"), [(PUSH_REFS, "hang"), (PUSH_REFS, "stall"), (PUSH, "hang"), (PUSH, "stall")])
async def test_a_push_to_a_server_that_falls_silent(
    tmp_path: Path, parts: GitParts, failing: GitServer, result: str, at: str, does: str
) -> None:
    remote, branch = Remote("pushed", failing.url("repo.git"), TOKEN), new_id("job").encode()
    failing.faults.append(Fault(at, does))
    addresses = AddressBook(FileRoots((), (), tmp_path), allow_loopback_http=True)
    publisher = Publisher(parts.git, addresses, NetworkLimits(silence_seconds=0.5))
    store = parts.paths.result_store(remote.repository_id)
    with pytest.raises(FailedPrecondition, match=SILENT) as failure:
        await publisher.push(store, remote, result, branch, "", report=lambda _: None)
    assert failure.value.reason == "REMOTE_UNREACHABLE"
    failing.faults.clear()
    was_made = (at, does) == (PUSH, "stall")
    assert await parts.manager.push(remote, result, branch, "") == was_made
    assert Repo(failing.root / "repo.git").head(branch.decode()) == result


@pytest.mark.slow
async def test_a_server_that_is_slow_is_waited_for(tmp_path: Path, failing: GitServer) -> None:
    failing.faults.append(Fault(FETCH, "drip"))
    async with git_parts(tmp_path / "home", allow_loopback_http=True, silence_seconds=2) as parts:
        await parts.prepare(Remote(new_id("repo"), failing.url("repo.git"), TOKEN))


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (503, "REMOTE_UNREACHABLE"),
        pytest.param(401, "REMOTE_ACCESS_DENIED", marks=pytest.mark.slow),
        pytest.param("cut", "REMOTE_UNREACHABLE", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("named", [True, False])
async def test_a_fetch_of_what_is_on_no_branch(
    parts: GitParts, failing: GitServer, named: bool, does: int | str, reason: str
) -> None:
    upstream = Repo(failing.root / "repo.git")
    commit_id = upstream.git("commit-tree", "main^{tree}", "-m", new_id("job"))
    name = f"refs/pull/{new_id('job')}/head"
    remote, revision = Remote("pulled", failing.url("repo.git"), TOKEN), name if named else commit_id
    await parts.prepare(remote)
    with pytest.raises(NotFound):
        await parts.prepare(remote, StartPoint((revision if named else "1" * 40).encode()))
    upstream.git("update-ref", name, commit_id)
    failing.faults.append(Fault(REFS, does, after=2))  # after those of ls-remote, and of the fetch of all branches
    with pytest.raises(FailedPrecondition) as failure:
        await parts.prepare(remote, StartPoint(revision.encode()))
    assert failure.value.reason == reason, failure.value
    failing.faults.clear()
    assert (await parts.prepare(remote, StartPoint(revision.encode()))).commit_id == commit_id


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


async def test_when_a_busy_server_wants_to_be_asked_again_is_said(parts: GitParts, failing: GitServer) -> None:
    failing.faults.append(Fault(REFS, 429, retry_after=30))
    with pytest.raises(FailedPrecondition, match=r"busy \(HTTP 429\), and wants to be asked again in 30 s") as failure:
        await parts.prepare(Remote(new_id("repo"), failing.url("repo.git"), TOKEN))
    assert failure.value.reason == "REMOTE_UNREACHABLE"


async def test_a_page_for_signing_in_is_named_without_what_it_is_asked(parts: GitParts, failing: GitServer) -> None:
    failing.faults.append(Fault(REFS, "https://login.example/sso?state=secret"))
    with pytest.raises(FailedPrecondition, match=r"page, as for signing in: https://login\.example/sso$") as failure:
        await parts.prepare(Remote(new_id("repo"), failing.url("repo.git"), TOKEN))
    assert failure.value.reason == "REMOTE_NOT_GIT"
    assert "failed with code" not in str(failure.value)


@pytest.mark.parametrize(("fault", "reason"), faults(OF_PUSH))
async def test_a_push(parts: GitParts, failing: GitServer, result: str, fault: Fault, reason: str) -> None:
    remote, branch = Remote("pushed", failing.url("repo.git"), TOKEN), new_id("job").encode()
    failing.faults.append(fault)
    with pytest.raises(FailedPrecondition) as failure:
        await parts.manager.push(remote, result, branch, "")
    assert failure.value.reason == reason, failure.value
    failing.faults.clear()
    assert not await parts.manager.push(remote, result, branch, "")
    assert Repo(failing.root / "repo.git").head(branch.decode()) == result


@pytest.mark.parametrize("does", LOST)
async def test_a_push_whose_answer_is_lost_is_found_to_have_been_made(
    parts: GitParts, failing: GitServer, result: str, does: str
) -> None:
    branch = new_id("job").encode()
    failing.faults.append(Fault(PUSH, does))
    await parts.manager.push(Remote("pushed", failing.url("repo.git"), TOKEN), result, branch, "")
    assert Repo(failing.root / "repo.git").head(branch.decode()) == result
