"""A private repository's token, through a whole cell: it opens the remote, and is found nowhere but in the database."""

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.gateway.v1 import catalog_pb2, hook_pb2, job_pb2, runtime_pb2

from services.common.rpc.streaming import streaming
from tests.kit.githttp import GitServer, git_server
from tests.kit.repos import Repo
from tests.kit.services import Services, running_services

TOKEN = "canary-5b7c9d1e3f"
NAMES = {TOKEN: "repo.git", "": "no-token.git", "wrong-canary": "wrong-token.git"}
"""The repository for which each token is shown; one URL is one repository."""
NEEDLES = (TOKEN.encode(), base64.b64encode(f"x-access-token:{TOKEN}".encode()), TOKEN.encode().hex().encode())
# Whatever an agent can read of itself and of others, it tells.
NOSY = """
env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; cat .git/config; git config --list
find /etc /home /root /run /tmp /var /workspace -type f -size -64k -exec cat {} + 2>/dev/null | head -c 2000000
touch made; true
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    directory = tmp_path_factory.mktemp("remote")
    root = directory / "served"
    work = Repo.sample(directory / "work")
    for name in NAMES.values():
        work.bare_clone(root / name).git("config", "http.receivepack", "true")
    with git_server(root, TOKEN) as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def cell(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with running_services(tmp_path_factory.mktemp("cell"), BOATYARD_GIT_ALLOW_LOOPBACK_HTTP="true") as services:
        yield services


async def repository(cell: Services, server: GitServer, token: str) -> catalog_pb2.Repository:
    wanted = catalog_pb2.Repository(url=server.url(NAMES[token]), token=token)
    return (await cell.catalog.CreateRepository(catalog_pb2.CreateRepositoryRequest(repository=wanted))).repository


def holders(directory: Path) -> set[str]:
    """Name the files that hold the token in one form or another."""
    found = set()
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the services are at work
            if path.is_file() and any(needle in path.read_bytes() for needle in NEEDLES):
                found.add(str(path.relative_to(directory)))
    return found


async def test_a_token_opens_the_remote_and_is_found_nowhere_else(cell: Services, server: GitServer) -> None:
    private = await repository(cell, server, TOKEN)
    hook = hook_pb2.Hook(event=hook_pb2.Hook.EVENT_PRE, command=f"cat; {NOSY}")
    hook = (await cell.hooks.CreateHook(hook_pb2.CreateHookRequest(hook=hook))).hook
    job = await cell.run(
        NOSY,
        repository_id=private.repository_id,
        policy={"verify_command": NOSY, "retention": "RETENTION_KEEP"},
    )
    await cell.hooks.DeleteHook(hook_pb2.DeleteHookRequest(hook_id=hook.hook_id))
    assert (job.state, job.reason, job.message) == (job_pb2.Job.STATE_SUCCEEDED, "", "")
    assert Repo(server.root / NAMES[TOKEN]).head(f"boatyard/{job.job_id}") == job.output.commit_id

    answers = [
        private,
        job,
        await cell.catalog.ListRepositories(catalog_pb2.ListRepositoriesRequest()),
        await cell.jobs.ListJobs(job_pb2.ListJobsRequest()),
        await cell.runtime.ListExecutions(runtime_pb2.ListExecutionsRequest()),
        await cell.runtime.ListWorkspaces(runtime_pb2.ListWorkspacesRequest()),
    ]
    said = b"".join(answer.SerializeToString() for answer in answers)
    for execution in answers[-2].executions:
        request = runtime_pb2.WatchExecutionRequest(execution_id=execution.execution_id)
        async with streaming(cell.runtime.WatchExecution(request)) as messages:
            said += b"".join([event.output.data async for message in messages for event in message.events])
    assert b"BOATYARD" in said, "the agent saw nothing at all"
    assert not any(needle in said + server.command_lines for needle in NEEDLES)

    planted = cell.root / "planted"
    planted.write_bytes(NEEDLES[0])
    assert holders(cell.root) == {planted.name}, "the search finds what is there, and nothing else is"


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "wrong-canary"])
async def test_a_remote_that_stays_closed_ends_the_job(cell: Services, server: GitServer, token: str) -> None:
    private = await repository(cell, server, token)
    job = await cell.run("true", repository_id=private.repository_id)
    assert (job.state, job.reason) == (job_pb2.Job.STATE_FAILED, "REMOTE_ACCESS_DENIED")
    assert "wants a token" in job.message, "it says what to mend"
    assert not any("wrong-canary" in cell.log(name) for name in cell.processes)
    assert "wrong-canary" not in str(job)
