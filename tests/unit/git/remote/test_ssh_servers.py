"""What OpenSSH's server, and what it runs, does wrong has its reason; silence is noticed while its connection lives."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import pytest

from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.git.model import Remote
from services.git.remote.addresses import AddressBook
from services.git.remote.bounds import NetworkLimits
from services.git.remote.file_repository import FileRoots
from services.git.remote.publisher import Publisher
from tests.kit import sshd
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo
from tests.kit.sshd import SshServer, ssh_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sshd.PROGRAM is None, reason="no sshd: nothing over real ssh is tested (openssh-server has it)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start sshd"),
]

SILENT: Final = "in which nothing came or went"
SILENCE_SECONDS: Final = 3  # for those alone that fall silent: on a busy machine a handshake takes as long
# What it does, after how many bytes; the reason, and words of the message.
OF_FETCH: Final = [
    ("refuses by a rule", 0, "REMOTE_ACCESS_DENIED", "give them the right there"),
    ("has no such repository", 0, "REMOTE_NOT_FOUND", "does not appear to be"),
    ("closes", 0, "REMOTE_UNREACHABLE", "git ls-remote failed"),
    ("is cut", 40, "REMOTE_UNREACHABLE", "git ls-remote failed"),
    ("is cut", 700, "REMOTE_UNREACHABLE", "git fetch failed"),
    ("says nothing", 0, "REMOTE_UNREACHABLE", SILENT),
    ("falls silent", 700, "REMOTE_UNREACHABLE", SILENT),
]
OF_PUSH: Final = [
    ("refuses by a rule", 0, "REMOTE_ACCESS_DENIED", "give them the right there"),
    ("closes", 0, "REMOTE_UNREACHABLE", ""),
    ("is cut", 40, "REMOTE_UNREACHABLE", ""),
    ("breaks off", 0, "REMOTE_UNREACHABLE", ""),
    ("breaks off", 200, "REMOTE_UNREACHABLE", ""),
    ("falls silent", 40, "REMOTE_UNREACHABLE", SILENT),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def failing(server: SshServer) -> Iterator[SshServer]:
    server.asked()
    yield server
    server.does("")
    server.is_known_by(server.host_key)


@pytest.fixture(scope="module")
def programs(server: SshServer) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{server.programs}:{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory, programs: None) -> AsyncIterator[GitParts]:
    async with git_parts(tmp_path_factory.mktemp("home"), allow_networks=("127.0.0.0/8",)) as parts:
        yield parts


@pytest.fixture(scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory, programs: None) -> AsyncIterator[GitParts]:
    async with git_parts(
        tmp_path_factory.mktemp("home"), allow_networks=("127.0.0.0/8",), silence_seconds=SILENCE_SECONDS
    ) as parts:
        yield parts


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    root = tmp_path_factory.mktemp("upstream")
    upstream = Repo.sample(root / "work").bare_clone(root / "repo.git")
    upstream.git("config", "core.logAllRefUpdates", "always")
    return upstream


@pytest.fixture(scope="module")
async def pushed(parts: GitParts, server: SshServer, upstream: Repo) -> tuple[Remote, str]:
    """Return a remote, and the commit of what an agent has made of it."""
    remote = Remote(new_id("repo"), server.url(upstream.path), server.key)
    workspace = parts.workspace(await parts.prepare(remote))
    workspace.agent.write({"new": "1"})
    taken = await parts.manager.take_result(remote.repository_id, new_id("result"), workspace.take_spec())
    return remote, taken.commit_id


async def refused(parts: GitParts, remote: Remote) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as failure:
        await parts.prepare(remote)
    assert not parts.paths.mirror(remote.repository_id).exists()
    assert list(parts.paths.scratch_root.iterdir()) == []
    return failure.value


@pytest.mark.parametrize(("fault", "after", "reason", "words"), OF_FETCH)
async def test_a_fetch(
    parts: GitParts,
    impatient: GitParts,
    failing: SshServer,
    upstream: Repo,
    fault: str,
    after: int,
    reason: str,
    words: str,
) -> None:
    failing.does(fault, after, "git-upload-pack")
    remote = Remote(new_id("repo"), failing.url(upstream.path), failing.key)
    failure = await refused(impatient if words == SILENT else parts, remote)
    assert (failure.reason, words in str(failure)) == (reason, True), failure
    failing.does("")
    assert (await parts.prepare(remote)).commit_id == upstream.head("main")


@pytest.mark.parametrize(("fault", "after", "reason", "words"), OF_PUSH)
async def test_a_push(
    tmp_path: Path,
    parts: GitParts,
    failing: SshServer,
    upstream: Repo,
    pushed: tuple[Remote, str],
    fault: str,
    after: int,
    reason: str,
    words: str,
) -> None:
    (remote, commit_id), branch = pushed, new_id("job")
    limits = NetworkLimits(silence_seconds=SILENCE_SECONDS if words == SILENT else 60)
    addresses = AddressBook(FileRoots((), (), tmp_path), networks=(ip_network("127.0.0.0/8"),))
    publisher, store = Publisher(parts.git, addresses, limits), parts.paths.result_store(remote.repository_id)
    failing.does(fault, after, "git-receive-pack")
    with pytest.raises(FailedPrecondition) as failure:
        await publisher.push(store, remote, commit_id, branch.encode(), "", report=lambda _: None)
    assert (failure.value.reason, words in str(failure.value)) == (reason, True), failure.value
    failing.does("")
    assert not await parts.manager.push(remote, commit_id, branch.encode(), "")
    assert reflog(upstream, branch) == [commit_id]


async def test_a_push_whose_answer_is_lost_is_found_to_have_been_made(
    parts: GitParts, failing: SshServer, upstream: Repo, pushed: tuple[Remote, str]
) -> None:
    (remote, commit_id), branch = pushed, new_id("job")
    hook = upstream.path / "hooks" / "post-receive"
    hook.write_text("#!/bin/sh\nkill -9 $PPID\n")
    hook.chmod(0o755)
    await parts.manager.push(remote, commit_id, branch.encode(), "")
    hook.unlink()
    assert reflog(upstream, branch) == [commit_id]


async def test_what_is_slow_is_waited_for(parts: GitParts, failing: SshServer, upstream: Repo) -> None:
    failing.does("is slow", 300, "git-upload-pack")
    base = await parts.prepare(Remote(new_id("repo"), failing.url(upstream.path), failing.key))
    assert base.commit_id == upstream.head("main")


@pytest.mark.parametrize("known", ["", "another's"])
async def test_a_server_that_is_not_known(parts: GitParts, failing: SshServer, upstream: Repo, known: str) -> None:
    failing.is_known_by(failing.another_key if known else "")
    failure = await refused(parts, Remote(new_id("repo"), failing.url(upstream.path), failing.key))
    assert failure.reason == "REMOTE_NOT_TRUSTED", failure
    assert failing.asked() == []


async def test_a_key_that_it_does_not_know(parts: GitParts, failing: SshServer, upstream: Repo) -> None:
    for key in ("", failing.another_private_key):
        failure = await refused(parts, Remote(new_id("repo"), failing.url(upstream.path), key))
        assert failure.reason == "REMOTE_ACCESS_DENIED", failure


async def test_a_server_that_accepts_and_says_nothing(impatient: GitParts, server: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"ssh://git@127.0.0.1:{mute.getsockname()[1]}/repo.git"
        failure = await refused(impatient, Remote(new_id("repo"), url, server.key))
    assert (failure.reason, SILENT in str(failure)) == ("REMOTE_UNREACHABLE", True), failure


def reflog(upstream: Repo, branch: str) -> list[str]:
    """Return each commit at which the branch of a remote has been."""
    return upstream.git("reflog", "show", "--format=%H", f"refs/heads/{branch}").split()
