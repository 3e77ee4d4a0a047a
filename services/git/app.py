"""Puts the git service together."""

import re
import shutil
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

from boatyard.git.v1 import git_pb2 as pb
from boatyard.git.v1.git_pb2_grpc import add_GitServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common import program
from services.common.db.engine import open_database, sqlite_url
from services.common.db.fences import Fences
from services.common.db.migrate import migrate
from services.common.errors import StartError
from services.common.lock import single_instance
from services.common.metrics import Meters
from services.common.metrics.servicer import registration as metrics
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, serve
from services.common.settings import load_settings
from services.git import store
from services.git.bases import Bases
from services.git.clones import Clones
from services.git.deltas import Deltas
from services.git.diffs import Diffs
from services.git.disk import Disk, DiskBounds
from services.git.expiry import Expiry
from services.git.gitcmd import Command, Git, GitError
from services.git.keeping import Keeping
from services.git.manager import GitManager
from services.git.metrics import DiskMetrics, fetch_seconds
from services.git.mirrors import Bounds, Mirrors
from services.git.overlays import overlays_work
from services.git.places import Places
from services.git.preparing import Preparing
from services.git.publishing import Publisher
from services.git.remotes import AddressBook
from services.git.requests import Requests
from services.git.results import Results
from services.git.sandboxed import SandboxedGit
from services.git.servicer import GitServicer
from services.git.settings import GitSettings
from services.git.shelf import Shelf
from services.git.snapshots import Snapshots
from services.git.store import GitStore, ResultStore, SnapshotStore
from services.git.taking import Taker
from services.git.trees import Trees
from services.git.upkeep import Upkeep

# The first that reads its configuration from the environment and knows --end-of-options everywhere we give it.
_OLDEST_GIT: Final = (2, 36)
_INSTALL: Final = "install git 2.36 or newer, such as with `apt-get install git`"


def main() -> None:
    """Run the service until it is told to stop."""
    program.run("git", _main)


async def _main() -> None:
    settings = load_settings(GitSettings)
    places = Places(settings.home)
    settings.home.directory("git")
    async with AsyncExitStack() as stack:
        # Two services on one directory would take each other's unfinished work for rubbish.
        stack.enter_context(single_instance(places.root / "lock", f"serves the repositories in {places.root}"))
        places.make()
        git = await find_git(places.empty)
        engine = open_database(sqlite_url(places.root / "git.db"))
        stack.push_async_callback(engine.dispose)
        await migrate(engine, "services.git.migrations")
        addresses = AddressBook(
            settings.file_roots,
            settings.home.root,
            allow_loopback_http=settings.allow_loopback_http,
            networks=settings.allow_networks,
        )
        meters = await stack.enter_async_context(Meters("git").watching())
        manager = build_manager(
            settings, places, git, addresses, engine, stacks=await overlays_work(places), meters=meters
        )
        await stack.enter_async_context(program.background_tasks({"upkeep": manager.keep_house()}))
        draining = Draining()
        await serve(
            listen=settings.listen,
            registrations=[
                Registration(
                    pb.DESCRIPTOR.services_by_name["GitService"].full_name,
                    add_GitServiceServicer_to_server,
                    GitServicer(manager, Requests(addresses, places), draining),
                ),
                metrics(meters),
            ],
            around=[meters.around],
            authenticator=cell_authenticator(settings.home.cell_token()),
            draining=draining,
            reflection=settings.reflection,
        )


def build_manager(
    settings: GitSettings,
    places: Places,
    git: Git,
    addresses: AddressBook,
    engine: AsyncEngine,
    *,
    stacks: bool,
    meters: Meters,
) -> GitManager:
    """Wire the parts that do the work. `stacks` says whether overlays work here."""
    shelf = Shelf(places)
    shelf.mend()
    disk_bounds = DiskBounds(settings.disk_budget_bytes, settings.min_free_bytes, settings.base_grace_seconds)
    disk = Disk(places, shelf, disk_bounds)
    meters.add(DiskMetrics(disk))
    bounds = Bounds(settings.network_seconds, settings.lock_seconds, settings.min_free_bytes)
    sandboxed = SandboxedGit()
    taker = Taker(git, sandboxed, places.empty, max_pack_bytes=settings.max_result_bytes)
    results = Results(git, places, taker, bounds)
    mirrors = Mirrors(git, places, addresses, disk, bounds, fetched=fetch_seconds(meters.registry).observe)
    bases = Bases(git, places, shelf, disk, Deltas(git, shelf) if stacks else None)
    records = GitStore(engine)
    keeping = Keeping(ResultStore(engine), results, timedelta(hours=settings.result_keep_hours))
    snapshots = Snapshots(SnapshotStore(engine), results, timedelta(hours=settings.snapshot_keep_hours))
    return GitManager(
        store=records,
        fences=Fences(engine, store.fences),
        mirrors=mirrors,
        preparing=Preparing(records, mirrors, bases, results, settings.warm_seconds),
        results=results,
        keeping=keeping,
        snapshots=snapshots,
        trees=Trees(sandboxed),
        diffs=Diffs(git),
        publisher=Publisher(git, addresses, timeout_seconds=settings.network_seconds),
        clones=Clones(git, places, addresses, bounds),
        disk=disk,
        upkeep=Upkeep(git, places, mirrors),
        expiry=Expiry(snapshots, keeping, results),
    )


async def find_git(home: Path) -> Git:
    """Return a git that is new enough; `home` is an empty directory. Raises StartError."""
    executable = shutil.which("git")
    if executable is None:
        raise StartError(f"git is not installed: {_INSTALL}")
    git = Git(Path(executable), home)
    try:
        answer = (await git.run(Command("version"))).line.decode("ascii", "replace")
    except (GitError, OSError) as error:
        raise StartError(f"{executable} does not run: {error}; {_INSTALL}") from error
    version = re.search(r"(\d+)\.(\d+)", answer)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_GIT:
        raise StartError(f"{executable} is too old ({answer}): {_INSTALL}")
    return git
