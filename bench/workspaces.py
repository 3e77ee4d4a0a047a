"""A ready workspace from a warm, a near and a cold base, against `git clone --depth 1` and `git worktree add`.

For a small, a medium and a large repository, in one run, in rounds so that the machine's other work hits all of them.

client      as a caller sees it, over gRPC: PrepareBase, CreateWorkspace, CreateBranch, DeleteWorkspace
service     the same workspace made by the workspace service's own code in this process: pin, directories, mount
base cold   PrepareBase of a commit that was fetched and of which nothing is there: a whole tree
base near   PrepareBase of a commit that differs from a cached one in 20 files: a layer over it
Wanted: service >= 50 x the clone on the small repository, >= 500 x on the large one, large within 3 x of small; base
near >= 5 x the clone on the large one.
"""

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
from boatyard.git.v1 import git_pb2 as git_pb
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2 as pb
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub
from executions import free_port
from kit.repositories import generate

from services.common.rpc.channel import open_channel
from services.common.settings import Home
from services.workspace.drivers import Driver
from services.workspace.drivers.choice import choose
from services.workspace.drivers.disk import DiskAdmission
from services.workspace.shelf import Shelf

SIZES = {"small": 240, "medium": 5_000, "large": 40_000}
COMMITS = 6
CLONES = 5
ROUNDS = 10
AT_ONCE = 100

T = TypeVar("T")


@dataclass
class Node:
    """The two services as processes of their own, on one home."""

    home: Home
    git: GitServiceStub
    workspace: WorkspaceServiceStub
    made: int = 0

    async def prepare(self, remote: git_pb.Remote, revision: str) -> git_pb.Base:
        call = self.git.PrepareBase(git_pb.PrepareBaseRequest(remote=remote, revision=revision.encode()), timeout=600)
        async for message in call:
            last = message
        return last.base

    async def create(self, base: git_pb.Base) -> pb.Workspace:
        self.made += 1
        request = pb.CreateWorkspaceRequest(
            workspace_id=f"w-{self.made}", base_layers=base.layers, pins_path=base.pins_path
        )
        return (await self.workspace.CreateWorkspace(request, timeout=600)).workspace

    async def branch(self, workspace: pb.Workspace, base: git_pb.Base) -> None:
        tree = git_pb.WorkingTree(layout=workspace.layout, read_only_paths=base.read_only_paths)
        await self.git.CreateBranch(git_pb.CreateBranchRequest(tree=tree, branch=b"boatyard/bench"), timeout=600)

    async def delete(self, workspace: pb.Workspace) -> None:
        request = pb.DeleteWorkspaceRequest(workspace_id=workspace.workspace_id)
        await self.workspace.DeleteWorkspace(request, timeout=600)


@dataclass
class Times:
    """Milliseconds, by what took them."""

    of: dict[str, list[float]] = field(default_factory=dict)

    async def add(self, name: str, work: Callable[..., Awaitable[T]], *args: object) -> T:
        started = time.perf_counter()
        result = await work(*args)
        self.of.setdefault(name, []).append((time.perf_counter() - started) * 1e3)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.of[name])

    def show(self, name: str) -> str:
        found = self.of[name]
        return f"{statistics.median(found):9.1f} [{min(found):.1f}..{max(found):.1f}]"


@contextlib.asynccontextmanager
async def node(directory: Path) -> AsyncIterator[Node]:
    home = Home(directory / "home")
    settings = {"BOATYARD_HOME": str(home.root), "BOATYARD_LOG_LEVEL": "ERROR", "BOATYARD_GIT_FILE_ROOTS": "/"}
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("git", "workspace")}
    settings |= {f"BOATYARD_{name.upper()}_LISTEN": address for name, address in addresses.items()}
    token = home.cell_token()
    processes = [
        subprocess.Popen([sys.executable, "-m", f"services.{name}"], env=os.environ | settings) for name in addresses
    ]
    try:
        async with open_channel(addresses["git"], token) as git, open_channel(addresses["workspace"], token) as work:
            made = Node(home, GitServiceStub(git), WorkspaceServiceStub(work))
            await made.workspace.ListWorkspaces(pb.ListWorkspacesRequest(), wait_for_ready=True, timeout=60)
            usage = git_pb.UsageOfRepositoriesRequest()
            await made.git.UsageOfRepositories(usage, wait_for_ready=True, timeout=60)
            yield made
    finally:
        for process in processes:
            process.terminate()
            process.wait()


async def run(*argv: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*map(str, argv), stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, argv


def size(*paths: Path) -> str:
    """Disk and inodes below some directories, without what is mounted there."""
    kib = inodes = 0
    for path in paths:
        for flag in ("--block-size=1024", "--inodes"):
            answer = subprocess.run(["du", "-sx", flag, path], capture_output=True, text=True, check=True).stdout
            if flag == "--inodes":
                inodes += int(answer.split()[0])
            else:
                kib += int(answer.split()[0])
    return f"{kib} KiB, {inodes} inodes"


@dataclass
class Ours:
    """The workspace service's own code, in this process."""

    shelf: Shelf
    driver: Driver

    async def create(self, workspace_id: str, base: git_pb.Base) -> None:
        layers = tuple(Path(os.fsdecode(layer)) for layer in base.layers)
        await self.shelf.create(workspace_id, self.driver, layers, Path(os.fsdecode(base.pins_path)))

    async def delete(self, workspace_id: str) -> None:
        await self.shelf.discard(workspace_id)
        await self.shelf.clean(workspace_id)


async def bench(remote: git_pb.Remote, made: Node, ours: Ours, times: Times, place: Path) -> list[str]:
    """Measure one repository; returns what was found about sizes."""
    upstream = Path(remote.url)
    with contextlib.suppress(grpc.aio.AioRpcError):  # there is no such branch, and now there is a mirror
        await made.prepare(remote, "only-to-fetch")
    oldest, *near = [commit(upstream, f"main~{back}") for back in range(COMMITS - 1, -1, -1)]
    base = await times.add("base cold", made.prepare, remote, oldest)
    layers = [await times.add("base near", made.prepare, remote, each) for each in near]
    clone, tree = place / "clone", place / "worktree"
    git = ("git", f"--git-dir={upstream}", "worktree")
    for number in range(CLONES):
        await times.add("clone --depth 1", run, "git", "clone", "-q", "--depth", "1", f"file://{upstream}", clone)
        await times.add("worktree add", run, *git, "add", "--quiet", "--detach", tree, "main")
        for each in range(ROUNDS):
            await one_workspace(remote, base, made, times)
            await times.add("workspace, service", ours.create, f"{number}-{each}", base)
            await ours.delete(f"{number}-{each}")
        sizes = [f"clone {size(clone)}", f"worktree {size(tree)}"]
        await times.add("clone's rm -rf", run, "rm", "-rf", clone)
        await run(*git, "remove", "--force", tree)
    workspace = await made.create(base)
    sizes.append(f"workspace ({workspace.driver}) {size(made.home.workspace_trees / workspace.workspace_id)}")
    sizes.append(f"whole base {size(Path(os.fsdecode(base.layers[0])))}")
    sizes.append(f"layer {size(Path(os.fsdecode(layers[0].layers[0])))}")
    await times.add(f"{AT_ONCE} at once", many, made, base, layers[-1])
    return sizes


async def one_workspace(remote: git_pb.Remote, base: git_pb.Base, made: Node, times: Times) -> None:
    """Make and delete one, as the gateway does."""
    await times.add("base warm, client", made.prepare, remote, base.commit_id)
    workspace = await times.add("workspace, client", made.create, base)
    await times.add("branch, client", made.branch, workspace, base)
    await times.add("delete, client", made.delete, workspace)


async def many(made: Node, *bases: git_pb.Base) -> None:
    """Make a hundred workspaces at once, of several bases; they are removed at the end of everything."""
    await asyncio.gather(*(made.create(bases[number % len(bases)]) for number in range(AT_ONCE)))


def commit(upstream: Path, revision: str) -> str:
    argv = ["git", f"--git-dir={upstream}", "rev-parse", revision]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def report(name: str, times: Times, sizes: list[str]) -> None:
    print(f"\n{name}: {SIZES[name]} files (ms: median [min..max])")
    clone = times.median("clone --depth 1")
    for row in times.of:
        print(f"  {row:20} {times.show(row)}   clone / this = {clone / times.median(row):.1f}")
    for line in sizes:
        print(f"  {line}")


async def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-bench-"))
    try:
        results: dict[str, Times] = {}
        async with node(directory) as made:
            trees = directory / "ours"
            trees.mkdir()
            choice = await choose(trees, DiskAdmission(trees, 0), wanted=None, concurrent_copies=4)
            ours = Ours(Shelf(trees), choice.chosen)
            for name, files in SIZES.items():
                upstream = directory / f"{name}.git"
                generate(upstream, files, COMMITS)
                remote = git_pb.Remote(repository_id=name, url=str(upstream))
                times = results[name] = Times()
                report(name, times, await bench(remote, made, ours, times, directory))
            await delete_all(made)
        curve(results)
    finally:
        shutil.rmtree(directory)


async def delete_all(made: Node) -> None:
    token = ""
    while True:
        answer = await made.workspace.ListWorkspaces(pb.ListWorkspacesRequest(page_size=1000, page_token=token))
        for workspace in answer.workspaces:
            await made.delete(workspace)
        token = answer.next_page_token
        if not token:
            return


def curve(results: dict[str, Times]) -> None:
    print("\nover size:          " + "".join(f"{name:>12}" for name in results))
    for row in ("clone --depth 1", "worktree add", "base cold", "base near", "workspace, client", "workspace, service"):
        print(f"  {row:18}" + "".join(f"{times.median(row):12.1f}" for times in results.values()))
    small, large = results["small"], results["large"]
    service = "workspace, service"
    wanted = [
        ("clone / workspace, small", small.median("clone --depth 1") / small.median(service), ">=", 50),
        ("clone / workspace, large", large.median("clone --depth 1") / large.median(service), ">=", 500),
        ("workspace, large / small", large.median(service) / small.median(service), "<=", 3),
        ("clone / base near, large", large.median("clone --depth 1") / large.median("base near"), ">=", 5),
    ]
    for words, ratio, sign, aim in wanted:
        met = ratio >= aim if sign == ">=" else ratio <= aim
        print(f"  {words}: {ratio:.1f} (aim {sign} {aim}) {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    asyncio.run(main())
