"""The git service's parts put together as in production, on a home of their own, without a server."""

import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.common.db.engine import open_database, sqlite_url
from services.common.db.migrate import migrate
from services.common.ids import new_id
from services.git.app import build_manager, find_git
from services.git.gitcmd import Command, Completed, Git, Invocation
from services.git.manager import GitManager
from services.git.model import Base, Progress, Remote, Signature, Wanted, WorkingTree
from services.git.overlays import overlays_work
from services.git.places import Places
from services.git.remotes import AddressBook
from services.git.settings import GitSettings
from services.git.taking import Order
from services.git.wire import Requests
from tests.kit.repos import Repo

SIGNATURE = Signature("Boatyard", "boatyard@example.com", 1_800_000_000)


class CountingGit(Git):
    """Real git that remembers what it was asked for, outside of sandboxes."""

    def __init__(self, executable: Path, home: Path) -> None:
        super().__init__(executable, home)
        self.ran: Counter[str] = Counter()

    async def run(self, command: Command, invocation: Invocation | None = None) -> Completed:
        self.ran[command.name] += 1
        return await super().run(command, invocation)


@dataclass
class GitParts:
    """A manager, and what stands around it."""

    manager: GitManager
    places: Places
    requests: Requests
    git: CountingGit

    async def prepare(self, remote: Remote, wanted: Wanted | None = None) -> Base:
        """Prepare a base and wait for it."""
        async with aclosing(self.manager.prepare_base(remote, wanted or Wanted())) as messages:
            async for message in messages:
                if not isinstance(message, Progress):
                    return message
        raise AssertionError("the stream ended without a base")

    def workspace(self, base: Base) -> "Workspace":
        """Copy a base, as the workspace service does."""
        path = self.places.home.workspace_trees / new_id("workspace") / "tree"
        path.parent.mkdir(parents=True)
        shutil.copytree(base.layers[0], path, symlinks=True)
        return Workspace(WorkingTree(path, base.read_only_paths), Repo(path), base)


@dataclass
class Workspace:
    """A working copy that a test plays the agent in."""

    tree: WorkingTree
    agent: Repo
    base: Base

    def order(self, message: str = "the work") -> Order:
        """Return the order to take it."""
        return Order(self.tree, self.base.commit_id, message, SIGNATURE)


@asynccontextmanager
async def git_parts(home: Path, *file_roots: Path, **settings: object) -> AsyncIterator[GitParts]:
    """Put a manager together on `home`."""
    chosen = GitSettings(**{"data_directory": home, "file_roots": file_roots, "min_free_bytes": 0, **settings})
    places = Places(chosen.home)
    places.make()
    git = CountingGit((await find_git(places.empty)).executable, places.empty)
    engine = open_database(sqlite_url(places.root / "git.db"))
    try:
        await migrate(engine, "services.git.migrations")
        addresses = AddressBook(chosen.file_roots, home, allow_loopback_http=chosen.allow_loopback_http)
        manager = build_manager(chosen, places, git, addresses, engine, stacks=await overlays_work(places))
        yield GitParts(manager, places, Requests(addresses, places), git)
    finally:
        await engine.dispose()
