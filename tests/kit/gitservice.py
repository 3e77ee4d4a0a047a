"""The git service's parts put together as in production, on a home of their own, without a server."""

import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.common.db.engine import open_database, sqlite_url
from services.common.ids import new_id
from services.common.metrics import Meters
from services.common.rpc.rules import Rules
from services.git.app import build_addresses, build_manager, find_git
from services.git.bases.overlays import overlays_work
from services.git.gitcmd import Command, Git, GitOutput, Invocation
from services.git.manager import GitManager
from services.git.model import Base, Layers, Progress, Remote, Signature, StartPoint, TakeSpec, WorkingTree
from services.git.paths import GitPaths
from services.git.settings import GitSettings
from services.git.wire.checks import checks
from services.git.worktree.sandboxed import TreeView
from services.sandbox import aio, environment
from services.sandbox.spec import MountAccess, SandboxSpec
from services.workspace.drivers.mounts import mount_overlay
from tests.kit.databases import add_database
from tests.kit.layout import workspace_trees
from tests.kit.repos import Repo
from tests.kit.uids import give_to_agents

SIGNATURE = Signature("Boatyard", "boatyard@example.com", 1_800_000_000)


class CountingGit(Git):
    """Real git that counts the commands that it runs outside of sandboxes."""

    def __init__(self, executable: Path, home: Path) -> None:
        super().__init__(executable, home)
        self.ran: Counter[str] = Counter()

    async def run(self, command: Command, invocation: Invocation | None = None) -> GitOutput:
        self.ran[command.name] += 1
        return await super().run(command, invocation)


@dataclass
class GitParts:
    """A manager and what it is built from."""

    manager: GitManager
    paths: GitPaths
    rules: Rules
    git: CountingGit

    async def prepare(self, remote: Remote, start: StartPoint | None = None) -> Base:
        """Prepare a base and wait for it."""
        async with aclosing(self.manager.prepare_base(remote, start or StartPoint())) as messages:
            async for message in messages:
                if not isinstance(message, Progress):
                    return message
        raise AssertionError("the stream ended without a base")

    def workspace(self, base: Base) -> "Workspace":
        """Copy a base, as the workspace service does."""
        path = workspace_trees(self.paths.home) / new_id("workspace") / "tree"
        path.parent.mkdir(parents=True)
        shutil.copytree(base.layers[0], path, symlinks=True)
        return Workspace(WorkingTree(path, base.read_only_paths), Repo(path), base)

    async def layered(self, base: Base, *, mounted: bool) -> "LayeredWorkspace":
        """Layer a workspace on a base, as the workspace service does; `mounted` is how it does it as root."""
        root = workspace_trees(self.paths.home) / new_id("workspace")
        upper, work, tree = root / "upper", root / "work", root / "tree"
        for directory in (upper, work, tree):
            directory.mkdir(parents=True)
        if mounted:
            give_to_agents(upper)
            mount_overlay(base.layers, upper, work, tree)
        layers = Layers(base.layers, upper, work, tree if mounted else None)
        return LayeredWorkspace(WorkingTree(tree if mounted else upper, base.read_only_paths, layers=layers), base)


@dataclass
class LayeredWorkspace:
    """A layered working copy. Shell scripts in a sandbox, one after another, play the agent."""

    tree: WorkingTree
    base: Base

    async def agent(self, script: str) -> str:
        """Run a script at the root of the tree; return what it wrote."""
        view = TreeView.of(self.tree, MountAccess.READ_WRITE)
        identity = {"GIT_AUTHOR_NAME": b"Ada", "GIT_AUTHOR_EMAIL": b"a@b", "GIT_COMMITTER_NAME": b"Ada"}
        identity |= {"GIT_COMMITTER_EMAIL": b"a@b", "GIT_CONFIG_NOSYSTEM": b"1"}
        spec = SandboxSpec(
            (b"sh", b"-ec", script.encode("utf-8", "surrogateescape")),
            view.tree,
            view.mounts,
            environment.base() | identity,
        )
        done = await aio.run(spec)
        assert done.exit_code == 0, f"{script}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode(errors="surrogateescape")

    def take_spec(self, message: str = "the work") -> TakeSpec:
        """Return the request to take this tree's result."""
        return TakeSpec(self.tree, self.base.commit_id, message, SIGNATURE)

    def unmount(self) -> None:
        """Unmount the tree, if it is mounted."""
        if self.tree.layers and self.tree.layers.mounted_path:
            subprocess.run(["umount", self.tree.layers.mounted_path], check=True)


@dataclass
class Workspace:
    """A working copy in which the test plays the agent."""

    tree: WorkingTree
    agent: Repo
    base: Base

    def take_spec(self, message: str = "the work") -> TakeSpec:
        """Return the request to take this tree's result."""
        return TakeSpec(self.tree, self.base.commit_id, message, SIGNATURE)


@asynccontextmanager
async def git_parts(home: Path, *file_roots: Path, layers: bool = True, **settings: object) -> AsyncIterator[GitParts]:
    """Put a manager together on `home`; without layers, as where overlays do not work."""
    chosen = GitSettings(**{"data_directory": home, "file_roots": file_roots, "min_free_bytes": 0, **settings})
    paths = GitPaths(chosen.home)
    paths.make()
    git = CountingGit((await find_git(paths.empty)).executable, paths.empty)
    add_database(paths.root / "git.db", "git")
    engine = open_database(sqlite_url(paths.root / "git.db"))
    try:
        addresses = build_addresses(chosen)
        stacks = layers and await overlays_work(paths)
        manager = build_manager(chosen, paths, git, addresses, engine, stacks=stacks, meters=Meters("git"))
        yield GitParts(manager, paths, Rules(checks(addresses, paths)), git)
    finally:
        await engine.dispose()
