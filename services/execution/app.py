"""Puts the execution service together."""

import asyncio
import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from pathlib import Path

import structlog
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import add_ExecutionServiceServicer_to_server

from services.common import program
from services.common.db.commit_events import on_commit
from services.common.db.engine import open_database, sqlite_url
from services.common.db.fences import Fences
from services.common.db.migrate import migrate
from services.common.lock import single_instance
from services.common.metrics import Meters
from services.common.metrics.servicer import registration as metrics
from services.common.rpc.auth import cell_authenticator
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration, serve
from services.common.settings import load_settings
from services.execution import containers, places, store
from services.execution.admission import Admission
from services.execution.attaching import Attaching
from services.execution.capabilities import CONTAINER, Capability, capabilities
from services.execution.guard import PathGuard
from services.execution.loop.access import NETWORK_VARIABLES, Access
from services.execution.loop.models import Models
from services.execution.manager import ExecutionManager
from services.execution.metrics import ExecutionCounts, RunningMetrics
from services.execution.requests import StartReader
from services.execution.retention import Retention, Terms
from services.execution.runner.group import Place, Task
from services.execution.servicer import ExecutionServicer
from services.execution.settings import ExecutionSettings
from services.execution.talking import Talking

log = structlog.get_logger()


def main() -> None:
    """Run the service until it is told to stop."""
    program.run("execution", _main)


async def _main() -> None:
    settings = load_settings(ExecutionSettings)
    home = settings.home
    directory = home.directory("execution")
    runs = home.directory("execution", "runs")
    async with AsyncExitStack() as stack:
        # Two services on one directory would both conclude the runs of a lost runner.
        stack.enter_context(single_instance(directory / "lock", f"serves the executions in {directory}"))
        control_groups = await asyncio.to_thread(_control_groups, directory) if settings.control_groups else {}
        stack.callback(places.remove, control_groups)
        engine = open_database(sqlite_url(directory / "execution.db"))
        stack.push_async_callback(engine.dispose)
        await migrate(engine, "services.execution.migrations")
        meters = await stack.enter_async_context(Meters("execution").watching())
        on_commit(engine, ExecutionCounts(meters.registry).hear)
        executions, fences = store.ExecutionStore(engine), Fences(engine, store.fences)
        manager = await stack.enter_async_context(
            aclosing(
                ExecutionManager(
                    executions,
                    fences,
                    _admission(settings, runs, control_groups),
                    _access(settings),
                    places=control_groups,
                )
            )
        )
        await manager.recover()
        meters.add(RunningMetrics(manager, settings.max_executions))
        terms = Terms(
            timedelta(hours=settings.pack_after_hours), timedelta(days=settings.keep_days), settings.keep_bytes
        )
        sweeping = {
            "retention": Retention(executions, runs, terms).run(settings.sweep_seconds),
            "containers": _remove_containers(runs, settings.sweep_seconds),
            "fences": fences.forget_in_time(),
        }
        await stack.enter_async_context(program.background_tasks(sweeping))
        found = await asyncio.to_thread(lambda: tuple(capabilities(control_groups, settings.container_engine)))
        _warn(found)
        draining = Draining()
        await serve(
            listen=settings.listen,
            registrations=[
                Registration(
                    pb.DESCRIPTOR.services_by_name["ExecutionService"].full_name,
                    add_ExecutionServiceServicer_to_server,
                    ExecutionServicer(
                        manager,
                        Talking(manager, fences),
                        Attaching(manager, fences),
                        StartReader(settings, PathGuard(home)),
                        draining=draining,
                        capabilities=found,
                    ),
                ),
                metrics(meters),
            ],
            around=[meters.around],
            authenticator=cell_authenticator(home.cell_token()),
            draining=draining,
            reflection=settings.reflection,
        )


async def _remove_containers(runs: Path, every_s: float) -> None:
    """Remove the containers of runners that are gone, now and as long as we are there."""
    while True:
        for execution_id, problem in await asyncio.to_thread(lambda: list(containers.sweep(runs))):
            log.warning("a container is left", execution_id=execution_id, problem=problem)
        await asyncio.sleep(every_s)


def _control_groups(directory: Path) -> Mapping[Task, Place]:
    """Find where control groups can be made, and remove what runners that were killed have left there."""
    name = f"boatyard-{hashlib.blake2s(os.fsencode(directory.resolve()), digest_size=6).hexdigest()}"
    found = places.find_places(name)
    places.sweep(found)
    missing = sorted(set(Task) - set(found))
    if missing:
        log.info("limits are sampled, for want of control groups", without=missing)
    return found


def _admission(settings: ExecutionSettings, runs: Path, control_groups: Mapping[Task, Place]) -> Admission:
    memory = control_groups.get(Task.MEMORY)
    return Admission(
        runs=runs,
        max_executions=settings.max_executions,
        memory_reserve_bytes=settings.memory_reserve_bytes,
        disk_reserve_bytes=settings.disk_reserve_bytes,
        load=settings.max_load,
        memory_group=None if memory is None else memory.home,
    )


def _access(settings: ExecutionSettings) -> Access | None:
    """Return what reaches a model: the key, where it is shown, and how the network is left here."""
    if settings.anthropic_api_key is None:
        return None
    models = Models.load(settings.models_file)  # a table that cannot be read is told at the start
    return Access(
        api_key=settings.anthropic_api_key.get_secret_value(),
        base_url=settings.anthropic_base_url,
        environment={name: os.environ[name] for name in NETWORK_VARIABLES if name in os.environ},
        models_file=models.path,
    )


def _warn(found: Iterable[Capability]) -> None:
    """Say what is missing at the start, not only when somebody needs it; tier `none` works all the same."""
    for one in found:
        if not one.provided_by and one.name != CONTAINER:  # few want one
            log.warning("does not work here", what=one.name, why=one.complaint)
