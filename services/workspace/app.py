"""Puts the workspace service together."""

from contextlib import AsyncExitStack, aclosing
from datetime import timedelta

from boatyard.workspace.v1 import workspace_pb2 as pb
from boatyard.workspace.v1.workspace_pb2_grpc import add_WorkspaceServiceServicer_to_server

from services.common import program
from services.common.db.commit_events import on_commit
from services.common.db.engine import open_database, sqlite_url
from services.common.db.fences import Fences
from services.common.db.migrate import migrate
from services.common.db.room import keep_room
from services.common.lock import single_instance
from services.common.metrics import Meters
from services.common.metrics.servicer import registration as metrics
from services.common.readiness.servicer import registration as readiness
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from services.common.rpc.nodes import node_tls
from services.common.rpc.server import Registration, serve
from services.common.settings import load_settings
from services.workspace import store, wire
from services.workspace.drivers import DiskAdmission, choose
from services.workspace.manager import WorkspaceManager
from services.workspace.metrics import WorkspaceCounts, WorkspaceMetrics
from services.workspace.servicer import WorkspaceServicer
from services.workspace.settings import WorkspaceSettings
from services.workspace.trees import WorkspaceTrees
from services.workspace.usage import UsageMeter


def main() -> None:
    """Run the service until it is told to stop."""
    program.run("workspace", _main)


async def _main() -> None:
    settings = load_settings(WorkspaceSettings)
    home = settings.home
    directory = home.directory("workspace")
    trees = home.directory("workspace", "trees")
    async with AsyncExitStack() as stack:
        # Two services on one directory would remove each other's unfinished copies.
        stack.enter_context(single_instance(directory / "lock", f"serves the workspaces in {directory}"))
        engine = open_database(sqlite_url(directory / "workspace.db"))
        stack.push_async_callback(engine.dispose)
        await migrate(engine, "services.workspace.migrations")
        meters = await stack.enter_async_context(Meters("workspace").watching())
        on_commit(engine, WorkspaceCounts(meters.registry).count)
        admission = DiskAdmission(trees, settings.disk_reserve_bytes)
        choice = await choose(trees, admission, wanted=settings.driver, concurrent_copies=settings.concurrent_copies)
        meter = UsageMeter(
            trees,
            reserve_bytes=settings.disk_reserve_bytes,
            max_bytes=settings.max_bytes,
            total_bytes=settings.total_bytes,
        )
        workspaces, fences = store.WorkspaceStore(engine), Fences(engine, store.fences)
        meters.add(WorkspaceMetrics(workspaces, meter))
        manager = await stack.enter_async_context(
            aclosing(WorkspaceManager(workspaces, fences, WorkspaceTrees(trees), choice, meter))
        )
        await manager.recover()
        upkeep = {
            "sweep": manager.run_retention(timedelta(hours=settings.keep_hours)),
            "measure": manager.run_measuring(),
            "fences": fences.run_retention(),
            "room": keep_room(engine),
        }
        await stack.enter_async_context(program.background_tasks(upkeep))
        listen = settings.listen or settings.home.socket("workspace")
        await serve(
            listen=listen,
            tls=node_tls(settings.home, listen),
            registrations=[
                Registration(
                    pb.DESCRIPTOR.services_by_name["WorkspaceService"].full_name,
                    add_WorkspaceServiceServicer_to_server,
                    WorkspaceServicer(manager),
                    wire.CHECKS,
                ),
                metrics(meters),
                readiness(admission.check, manager.check_quota),
            ],
            around=[meters.around],
            authenticator=cell_authenticator(home.cell_token()),
            draining=Draining(),
            reflection=settings.reflection,
        )
