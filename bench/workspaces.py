"""A ready workspace from a warm, a near and a cold base, against `git clone --depth 1` and `git worktree add`.

Measures a small, a medium and a large repository, in one run, in rounds so that the machine's other work affects all of
them: milliseconds (median, minimum and maximum), and how many times as long the clone took.

client      as a caller sees it, over gRPC: PrepareBase, CreateWorkspace, CreateBranch, DeleteWorkspace
service     the same workspace made by the workspace service's own code in this process: pin, directories, mount
base cold   PrepareBase of a commit that was fetched but of which nothing is cached: a whole tree
base near   PrepareBase of a commit that differs from a cached one in 20 files: a layer over it
            (for the small repository a whole tree, which takes less time than a layer there)
Wanted: service >= 50 x the clone on the small repository, >= 500 x on the large one, large within 3 x of small; base
near >= 5 x the clone on the large one.

    python -m bench.workspaces small medium --clones 2
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import grpc
from boatyard.git.v1 import git_pb2 as git_pb
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2 as pb
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from bench.kit.figures import at_least, at_most
from bench.kit.options import add_parts, options
from bench.kit.repositories import generate
from bench.kit.services import running
from services.common import logs
from services.common.home import Home
from services.workspace.drivers import Choice, DiskAdmission, choose
from services.workspace.model import NewWorkspace
from services.workspace.trees import WorkspaceTrees
from tests.kit.layout import workspace_trees
from tests.kit.services import Services

SIZES = {"small": 240, "medium": 5_000, "large": 40_000}
COMMITS = 6
AT_ONCE = 100
CLONE, NEAR, SERVICE = "clone --depth 1", "base near", "workspace, service"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Node:
    """The two services as processes of their own, on one home."""

    home: Home
    git: GitServiceStub
    workspace: WorkspaceServiceStub
    made: int = 0

    async def prepare(self, remote: git_pb.Remote, revision: str) -> git_pb.Base:
        call = self.git.PrepareBase(git_pb.PrepareBaseRequest(remote=remote, revision=revision), timeout=600)
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
        await self.git.CreateBranch(git_pb.CreateBranchRequest(tree=tree, branch="boatyard/bench"), timeout=600)

    async def delete(self, workspace: pb.Workspace) -> None:
        request = pb.DeleteWorkspaceRequest(workspace_id=workspace.workspace_id)
        await self.workspace.DeleteWorkspace(request, timeout=600)


@dataclass
class Times:
    """Milliseconds by operation."""

    of: dict[str, list[float]] = field(default_factory=dict)

    async def add(self, name: str, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        started = time.perf_counter()
        result = await work(*args, **kwargs)
        self.of.setdefault(name, []).append((time.perf_counter() - started) * 1e3)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.of[name])

    def show(self, name: str) -> str:
        found = self.of[name]
        return f"{statistics.median(found):9.1f} [{min(found):.1f}..{max(found):.1f}]"


@contextlib.asynccontextmanager
async def node(directory: Path) -> AsyncIterator[Node]:
    services = Services(directory)
    async with running(services, "git", "workspace") as (git, workspace):
        yield Node(services.home, GitServiceStub(git), WorkspaceServiceStub(workspace))


async def run(*argv: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*map(str, argv), stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, argv


def size(path: Path) -> str:
    """Return disk use and inodes below a directory, without what is mounted there."""

    def sum_of(what: str) -> int:
        return int(subprocess.run(["du", "-sx", what, path], capture_output=True, check=True).stdout.split()[0])

    return f"{sum_of('--block-size=1024')} KiB, {sum_of('--inodes')} inodes"


@dataclass
class Ours:
    """The workspace service's own code, in this process."""

    shelf: WorkspaceTrees
    choice: Choice

    async def create(self, workspace_id: str, base: git_pb.Base) -> None:
        layers = tuple(Path(layer) for layer in base.layers)
        pins = Path(base.pins_path)
        wanted = NewWorkspace(workspace_id, layers, pins_path=pins)
        await self.shelf.create(wanted, self.choice.chosen, self.choice.new_owner())

    async def delete(self, workspace_id: str) -> None:
        await self.shelf.discard(workspace_id)
        await self.shelf.clean(workspace_id)


async def bench(
    remote: git_pb.Remote, made: Node, ours: Ours, times: Times, place: Path, wanted: argparse.Namespace
) -> list[str]:
    """Measure one repository; return lines about disk sizes."""
    upstream = Path(remote.url)
    with contextlib.suppress(grpc.aio.AioRpcError):  # there is no such branch, but this makes the mirror
        await made.prepare(remote, "only-to-fetch")
    oldest, *near = [commit(upstream, f"main~{back}") for back in range(COMMITS - 1, -1, -1)]
    base = await times.add("base cold", made.prepare, remote, oldest)
    layers = [await times.add(NEAR, made.prepare, remote, each) for each in near]
    clone, tree = place / "clone", place / "worktree"
    git = ("git", f"--git-dir={upstream}", "worktree")
    for number in range(wanted.clones):
        await times.add(CLONE, run, "git", "clone", "-q", "--depth", "1", f"file://{upstream}", clone)
        await times.add("worktree add", run, *git, "add", "--quiet", "--detach", tree, "main")
        for each in range(wanted.rounds):
            await one_workspace(remote, base, made, times)
            await times.add(SERVICE, ours.create, f"{number}-{each}", base)
            await ours.delete(f"{number}-{each}")
        sizes = [f"clone {size(clone)}", f"worktree {size(tree)}"]
        await times.add("clone's rm -rf", run, "rm", "-rf", clone)
        await run(*git, "remove", "--force", tree)
    workspace = await made.create(base)
    sizes.append(f"workspace ({workspace.driver}) {size(workspace_trees(made.home) / workspace.workspace_id)}")
    sizes.append(f"whole base {size(Path(base.layers[0]))}")
    sizes.append(f"near base {size(Path(layers[0].layers[0]))}")
    await times.add(f"{AT_ONCE} at once", many, made, base, layers[-1])
    return sizes


async def one_workspace(remote: git_pb.Remote, base: git_pb.Base, made: Node, times: Times) -> None:
    """Make and delete one workspace, as the gateway does."""
    await times.add("base warm, client", made.prepare, remote, base.commit_id)
    workspace = await times.add("workspace, client", made.create, base)
    await times.add("branch, client", made.branch, workspace, base)
    await times.add("delete, client", made.delete, workspace)


async def many(made: Node, *bases: git_pb.Base) -> None:
    """Make a hundred workspaces at once, on several bases; they are removed at the end of the benchmark."""
    await asyncio.gather(*(made.create(bases[number % len(bases)]) for number in range(AT_ONCE)))


def commit(upstream: Path, revision: str) -> str:
    argv = ["git", f"--git-dir={upstream}", "rev-parse", revision]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def report(name: str, times: Times, sizes: list[str]) -> None:
    print(f"\n{name}: {SIZES[name]} files (ms: median [min..max])")
    clone = times.median(CLONE)
    for row in times.of:
        print(f"  {row:20} {times.show(row)}   clone / this = {clone / times.median(row):.1f}")
    for line in sizes:
        print(f"  {line}")


async def main() -> None:
    parser = options(__doc__)
    add_parts(parser, SIZES)
    parser.add_argument("--clones", type=int, default=5, help="of each repository")
    parser.add_argument("--rounds", type=int, default=10, help="of workspaces, to each clone")
    wanted = parser.parse_args()
    logs.configure("bench", "WARNING")
    results: dict[str, Times] = {}
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
        directory = Path(name)
        trees = directory / "ours"
        trees.mkdir()
        async with node(directory) as made:
            choice = await choose(trees, DiskAdmission(trees, 0), wanted=None, concurrent_copies=4)
            ours = Ours(WorkspaceTrees(trees), choice)
            for part in wanted.parts:
                upstream = directory / f"{part}.git"
                generate(upstream, SIZES[part], COMMITS)
                remote = git_pb.Remote(repository_id=part, url=str(upstream))
                times = results[part] = Times()
                report(part, times, await bench(remote, made, ours, times, directory, wanted))
            await delete_all(made)
    curve(results)
    judge(results)


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
    for row in (CLONE, "worktree add", "base cold", NEAR, "workspace, client", SERVICE):
        print(f"  {row:18}" + "".join(f"{times.median(row):12.1f}" for times in results.values()))


def judge(results: dict[str, Times]) -> None:
    """Compare what was measured with the goals; some need two sizes."""
    gains = {name: times.median(CLONE) / times.median(SERVICE) for name, times in results.items()}
    for name, aim in (("small", 50), ("large", 500)):
        if name in gains:
            print(f"  clone / workspace, {name}: {gains[name]:.1f} {at_least(gains[name], aim)}")
    if "large" in results:
        large = results["large"]
        gain = large.median(CLONE) / large.median(NEAR)
        print(f"  clone / base near, large: {gain:.1f} {at_least(gain, 5)}")
        if "small" in results:
            growth = large.median(SERVICE) / results["small"].median(SERVICE)
            print(f"  workspace, large / small: {growth:.1f} {at_most(growth, 3)}")


if __name__ == "__main__":
    asyncio.run(main())
