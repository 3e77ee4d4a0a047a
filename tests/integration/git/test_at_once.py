"""A hundred jobs begin at once on one repository: the git and the workspace service as processes, and a git server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from services.common.rpc.channel import open_channel
from services.common.rpc.streaming import streaming
from tests.kit.githttp import git_server
from tests.kit.repos import Repo
from tests.kit.services import Services

MANY, UNKNOWN = 100, 20
T = TypeVar("T")
FILES = {f"src/{folder}/{name}": f"{folder} {name}\n" for folder in range(20) for name in range(30)}


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """Ask again while a database is busy, as the gateway does: on a slow disk a hundred writers may take their time."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_hundred_workspaces_of_which_twenty_start_from_what_is_not_fetched_yet(tmp_path: Path) -> None:
    work = Repo.init(tmp_path / "work")
    known = work.commit("first", FILES)
    upstream = work.bare_clone(tmp_path / "served" / "repo.git")
    services = Services(tmp_path, BOATYARD_GIT_ALLOW_LOOPBACK_HTTP="1", BOATYARD_WORKSPACE_DISK_RESERVE_BYTES="0")
    token = services.home.cell_token()
    with git_server(tmp_path / "served", "token") as server:
        remote = git_pb2.Remote(repository_id="repo-1", url=server.url("repo.git"), token="token")
        async with (
            open_channel(services.address("git"), token) as git_channel,
            open_channel(services.address("workspace"), token) as workspace_channel,
        ):
            git, workspaces = GitServiceStub(git_channel), WorkspaceServiceStub(workspace_channel)

            async def prepare(commit: str) -> git_pb2.Base:
                request = git_pb2.PrepareBaseRequest(remote=remote, revision=commit)
                async with streaming(git.PrepareBase(request, timeout=300)) as messages:
                    return [message async for message in messages][-1].base

            async def begin(number: int, commit: str) -> workspace_pb2.Workspace:
                base = await prepare(commit)
                assert base.commit_id == commit
                request = workspace_pb2.CreateWorkspaceRequest(
                    workspace_id=f"workspace-{number}", base_layers=base.layers, pins_path=base.pins_path
                )
                made = await until_answered(lambda: workspaces.CreateWorkspace(request, timeout=300))
                workspace = made.workspace
                if number < UNKNOWN:
                    tree = git_pb2.WorkingTree(layout=workspace.layout, read_only_paths=base.read_only_paths)
                    head = await git.GetCurrentBranch(git_pb2.GetCurrentBranchRequest(tree=tree), timeout=300)
                    status = await git.GetStatus(git_pb2.GetStatusRequest(tree=tree), timeout=300)
                    assert (head.commit_id, status.is_clean) == (commit, True)
                return workspace

            async def end(workspace: workspace_pb2.Workspace) -> None:
                request = workspace_pb2.DeleteWorkspaceRequest(workspace_id=workspace.workspace_id)
                await until_answered(lambda: workspaces.DeleteWorkspace(request, timeout=300))

            try:
                for name in ("git", "workspace"):
                    services.start(name)
                    await services.serving(name)
                await prepare(known)
                new = [work.commit(f"number {number}", {"counter": str(number)}) for number in range(UNKNOWN)]
                work.git("push", "--quiet", str(upstream.path), "main")
                server.requests.clear()
                commits = [*new, *[known] * (MANY - UNKNOWN)]
                made = await asyncio.gather(*(begin(number, commit) for number, commit in enumerate(commits)))
                listings = [path for path in server.requests if "/info/refs" in path]
                assert len(listings) == 2, "one for the remote's HEAD, and one for the one fetch"
                usage = await git.ListRepositoryUsage(git_pb2.ListRepositoryUsageRequest(), timeout=300)
                assert sum(base.pins for base in usage.repositories[0].bases) == MANY
                await asyncio.gather(*map(end, made))
                usage = await git.ListRepositoryUsage(git_pb2.ListRepositoryUsageRequest(), timeout=300)
                assert sum(base.pins for base in usage.repositories[0].bases) == 0
            finally:
                for name in list(services.processes):
                    services.end(name)
