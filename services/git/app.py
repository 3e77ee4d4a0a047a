"""Composes the git service: settings, database, rooms, manager, server."""

import re
import shutil
from contextlib import AsyncExitStack
from dataclasses import replace
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
from services.common.db.room import keep_room
from services.common.errors import StartError
from services.common.lock import single_instance
from services.common.metrics import Meters
from services.common.metrics.servicer import registration as metrics
from services.common.readiness.servicer import registration as readiness
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from services.common.rpc.nodes import node_tls
from services.common.rpc.server import Registration, serve
from services.common.settings import load_settings
from services.git import store
from services.git.bases.builder import BaseBuilder
from services.git.bases.deltas import DeltaLayers
from services.git.bases.lfs import LfsTrees
from services.git.bases.lfs_choice import LfsLimits
from services.git.bases.overlays import overlays_work
from services.git.bases.preparer import BasePreparer
from services.git.bases.submodule_links import SubmoduleLinks
from services.git.bases.submodules import SubmoduleLimits, Submodules
from services.git.comparison import Comparison
from services.git.disk.base_cache import BaseCache
from services.git.disk.budget import DiskBudget, DiskLimits
from services.git.gitcmd import Command, Git, GitError
from services.git.manager import GitManager
from services.git.metrics import DiskMetrics, fetch_seconds
from services.git.model import ArtifactLimits
from services.git.paths import GitPaths
from services.git.remote.addresses import AddressBook
from services.git.remote.bounds import NetworkLimits
from services.git.remote.file_repository import FileRoots
from services.git.remote.lfs import LfsRemotes
from services.git.remote.publisher import Publisher
from services.git.remote.trust import certificates_file
from services.git.servicer import GitServicer
from services.git.settings import GitSettings
from services.git.store import RepositoryRecords, ResultRecords, SnapshotRecords
from services.git.stores.artifacts import ArtifactStore
from services.git.stores.clones import Clones
from services.git.stores.commits import CommitStores
from services.git.stores.diffs import Diffs
from services.git.stores.lfs_objects import LfsObjects
from services.git.stores.lfs_transfer import LfsTransfer
from services.git.stores.mirrors import Mirrors
from services.git.stores.module_files import ModuleFiles
from services.git.stores.repacking import MirrorRepacker
from services.git.stores.repository import StoreLimits
from services.git.stores.results import ResultStores
from services.git.stores.retention import ResultRetention, RetentionLoop
from services.git.stores.snapshots import Snapshots
from services.git.stores.tree_commits import TreeCommits
from services.git.stores.tree_diffs import TreeDiffs
from services.git.taking import Taking
from services.git.wire.checks import checks
from services.git.worktree.artifact_reader import ArtifactReader
from services.git.worktree.sandboxed import SandboxedGit
from services.git.worktree.size import TreeLimits
from services.git.worktree.submodule_heads import SubmoduleHeads
from services.git.worktree.submodule_patches import SubmodulePatches
from services.git.worktree.taker import Taker
from services.git.worktree.trees import WorkingTrees

# The first version that reads configuration from the environment and accepts --end-of-options wherever we pass it.
_OLDEST_GIT: Final = (2, 36)
_INSTALL: Final = "install git 2.36 or newer, such as with `apt-get install git`"


def main() -> None:
    """Run the service until it is asked to stop."""
    program.run("git", _main)


async def _main() -> None:
    settings = load_settings(GitSettings)
    paths = GitPaths(settings.home)
    settings.home.directory("git")
    async with AsyncExitStack() as stack:
        # Two services on one directory would each remove the other's unfinished work at start-up.
        stack.enter_context(single_instance(paths.root / "lock", f"serves the repositories in {paths.root}"))
        paths.make()
        certificates = certificates_file(settings.ca, paths.root)
        git = await find_git(paths.empty, lends_ssh_identity=settings.ssh_identity, certificates=certificates)
        engine = open_database(sqlite_url(paths.root / "git.db"))
        stack.push_async_callback(engine.dispose)
        await migrate(engine, "services.git.migrations")
        addresses = build_addresses(settings)
        meters = await stack.enter_async_context(Meters("git").watching())
        manager = build_manager(
            settings, paths, git, addresses, engine, stacks=await overlays_work(paths), meters=meters
        )
        upkeep = {"maintenance": manager.run_maintenance(), "room": keep_room(engine)}
        await stack.enter_async_context(program.background_tasks(upkeep))
        draining = Draining()
        listen = settings.listen or settings.home.socket("git")
        await serve(
            listen=listen,
            tls=node_tls(settings.home, listen),
            registrations=[
                Registration(
                    pb.DESCRIPTOR.services_by_name["GitService"].full_name,
                    add_GitServiceServicer_to_server,
                    GitServicer(manager, draining),
                    checks(addresses, paths),
                ),
                metrics(meters),
                readiness(manager.budget.check),
            ],
            around=[meters.around],
            authenticator=cell_authenticator(settings.home.cell_token()),
            draining=draining,
            reflection=settings.reflection,
        )


def build_addresses(settings: GitSettings) -> AddressBook:
    """Build what decides which remotes may be used."""
    own, others = ([root.resolve() for root in roots] for roots in (settings.file_roots, settings.others_file_roots))
    return AddressBook(
        FileRoots(tuple(own), tuple(others), settings.home.root.resolve()),
        sandboxed=settings.sandbox_file_remotes,
        allow_loopback_http=settings.allow_loopback_http,
        networks=settings.allow_networks,
    )


def build_manager(
    settings: GitSettings,
    paths: GitPaths,
    git: Git,
    addresses: AddressBook,
    engine: AsyncEngine,
    *,
    stacks: bool,
    meters: Meters,
) -> GitManager:
    """Build the manager and everything below it. `stacks` is true when overlays work on this machine."""
    cache = BaseCache(paths)
    cache.remove_broken()
    disk_limits = DiskLimits(settings.disk_budget_bytes, settings.min_free_bytes, settings.base_grace_seconds)
    budget = DiskBudget(paths, cache, disk_limits)
    meters.add(DiskMetrics(budget))
    network = NetworkLimits(
        seconds=settings.network_seconds,
        silence_seconds=settings.silence_seconds,
        memory_bytes=settings.fetch_memory_bytes,
        fetch_bytes=settings.fetch_max_bytes,
        min_free_bytes=settings.min_free_bytes,
    )
    limits = StoreLimits(settings.lock_seconds, settings.min_free_bytes, settings.max_refs, network)
    sandboxed = SandboxedGit()
    # Where there are no layers, what the base has is read too.
    most_lfs = settings.lfs_max_bytes + settings.max_result_bytes
    taker = Taker(git, sandboxed, max_pack_bytes=settings.max_result_bytes, max_lfs_bytes=most_lfs)
    results = ResultStores(git, paths, taker, limits, TreeLimits(settings.take_max_bytes, settings.take_max_files))
    on_fetched = fetch_seconds(meters.registry).observe
    mirrors = Mirrors(git, paths, addresses, budget, limits, on_fetched=on_fetched)
    smaller = replace(network, fetch_bytes=min(settings.fetch_max_bytes, settings.submodules_max_bytes))
    inner = Mirrors(git, paths, addresses, budget, replace(limits, network=smaller), on_fetched=on_fetched)
    submodule_limits = SubmoduleLimits(settings.max_submodules, settings.submodules_max_bytes)
    module_files = ModuleFiles(git)
    submodules = Submodules(module_files, inner, addresses, submodule_limits)
    bases = BaseBuilder(git, paths, cache, budget, DeltaLayers(git, cache) if stacks else None)
    objects = LfsObjects(paths)
    transfer = LfsTransfer(git, paths, mirrors, addresses, LfsRemotes(addresses, network, git.certificates))
    lfs_limits = LfsLimits(bytes=settings.lfs_max_bytes)
    lfs = LfsTrees(git, paths, cache, budget, objects=objects, transfer=transfer, limits=lfs_limits, stacks=stacks)
    records = RepositoryRecords(engine)
    keep_for = timedelta(hours=settings.result_keep_hours)
    retention = ResultRetention(ResultRecords(engine), results, keep_for)
    snapshots = Snapshots(SnapshotRecords(engine), results, timedelta(hours=settings.snapshot_keep_hours))
    reader = ArtifactReader(sandboxed, ArtifactLimits(settings.max_artifacts, settings.max_artifact_bytes))
    patches = SubmodulePatches(git, sandboxed, most_lfs)
    artifacts = ArtifactStore(paths, reader, patches, keep_for, settings.min_free_bytes)
    trees = WorkingTrees(sandboxed, paths)
    preparer = BasePreparer(
        records,
        mirrors,
        bases,
        results,
        snapshots,
        submodules=submodules,
        lfs=lfs,
        warm_seconds=settings.warm_seconds,
    )
    stores = CommitStores(mirrors, results)
    taking = Taking(
        records,
        stores,
        mirrors=mirrors,
        preparer=preparer,
        submodule_links=SubmoduleLinks(module_files, submodules, SubmoduleHeads(sandboxed), patches),
        lfs=transfer,
        results=results,
        retention=retention,
        snapshots=snapshots,
        artifacts=artifacts,
    )
    return GitManager(
        records=records,
        fences=Fences(engine, store.fences),
        mirrors=mirrors,
        preparer=preparer,
        taking=taking,
        comparison=Comparison(stores, mirrors, Diffs(git)),
        lfs=transfer,
        stores=stores,
        retention=retention,
        snapshots=snapshots,
        artifacts=artifacts,
        trees=trees,
        tree_diffs=TreeDiffs(git, sandboxed, trees, paths),
        tree_commits=TreeCommits(
            git, sandboxed, results, paths, limits=limits, max_pack_bytes=settings.max_result_bytes
        ),
        publisher=Publisher(git, addresses, network),
        addresses=addresses,
        clones=Clones(git, paths, addresses, limits),
        budget=budget,
        repacker=MirrorRepacker(git, paths, mirrors),
        retention_loop=RetentionLoop(snapshots, retention, results, artifacts),
    )


async def find_git(home: Path, *, lends_ssh_identity: bool = False, certificates: str = "") -> Git:
    """Find a git that is new enough, for `Git` and its options. Raises StartError when there is none."""
    executable = shutil.which("git")
    if executable is None:
        raise StartError(f"git is not installed: {_INSTALL}")
    git = Git(Path(executable), home, lends_ssh_identity=lends_ssh_identity, certificates=certificates)
    try:
        answer = (await git.run(Command("version"))).line.decode("ascii", "replace")
    except (GitError, OSError) as error:
        raise StartError(f"{executable} does not run: {error}; {_INSTALL}") from error
    version = re.search(r"(\d+)\.(\d+)", answer)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_GIT:
        raise StartError(f"{executable} is too old ({answer}): {_INSTALL}")
    return git
