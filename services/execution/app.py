"""Composes the execution service: settings, database, manager, background tasks, server."""

import asyncio
import hashlib
import os
from collections.abc import Iterable
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from pathlib import Path

import structlog
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import add_ExecutionServiceServicer_to_server

from services.agent.wire import CHECKS
from services.common import program
from services.common.db.commit_events import on_commit
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
from services.execution.cgroups import hierarchies
from services.execution.cgroups.group import ControlGroupHierarchies, Controller
from services.execution.presets.preset import PresetError
from services.execution.presets.presets import Presets
from services.execution.processes import containers
from services.execution.service import store
from services.execution.service.admission import Admission
from services.execution.service.agents import Agents
from services.execution.service.capabilities import CONTAINER, Capability, capabilities
from services.execution.service.isolation import Isolation
from services.execution.service.manager import ExecutionManager
from services.execution.service.messaging import Messaging
from services.execution.service.metrics import ExecutionCounts, RunningMetrics
from services.execution.service.path_guard import PathGuard
from services.execution.service.readiness import Readiness
from services.execution.service.retention import Retention, RetentionLimits
from services.execution.service.terminals import Terminals
from services.execution.servicer import ExecutionServicer
from services.execution.settings import PRESETS_SETTING, ExecutionSettings
from services.execution.wire.start import StartReader

_AGENTS_EVERY_S = 60.0

log = structlog.get_logger()


def main() -> None:
    """Run the service until it is asked to stop."""
    program.run("execution", _main)


async def _main() -> None:
    settings = load_settings(ExecutionSettings)
    presets = _presets(settings)
    home = settings.home
    directory = home.directory("execution")
    runs = home.directory("execution", "runs")
    async with AsyncExitStack() as stack:
        # Two services on one directory would both write the results of runs whose runner was lost.
        stack.enter_context(single_instance(directory / "lock", f"serves the executions in {directory}"))
        control_groups = await asyncio.to_thread(_control_groups, directory) if settings.control_groups else {}
        stack.callback(hierarchies.remove, control_groups)
        engine = open_database(sqlite_url(directory / "execution.db"))
        stack.push_async_callback(engine.dispose)
        await migrate(engine, "services.execution.migrations")
        meters = await stack.enter_async_context(Meters("execution").watching())
        on_commit(engine, ExecutionCounts(meters.registry).hear)
        executions, fences = store.ExecutionStore(engine), Fences(engine, store.fences)
        admission = _admission(settings, runs, control_groups)
        ready = Readiness(admission, settings)
        manager = await stack.enter_async_context(
            aclosing(
                ExecutionManager(
                    executions,
                    fences,
                    admission,
                    Isolation(settings.allowance, executions),
                    control_groups=control_groups,
                )
            )
        )
        await manager.recover()
        meters.add(RunningMetrics(manager, settings.max_executions))
        limits = RetentionLimits(
            timedelta(hours=settings.pack_after_hours), timedelta(days=settings.keep_days), settings.keep_bytes
        )
        agents = Agents(presets)
        background = {
            "agents": agents.run(_AGENTS_EVERY_S),
            "retention": Retention(executions, runs, limits).run_retention(settings.sweep_seconds),
            "containers": _remove_containers(runs, settings.sweep_seconds),
            "fences": fences.run_retention(),
            "room": keep_room(engine),
        }
        await stack.enter_async_context(program.background_tasks(background))
        provided = await asyncio.to_thread(lambda: tuple(capabilities(control_groups, settings)))
        _warn_of_missing(provided)
        draining, starts = Draining(), StartReader(settings, PathGuard(home), presets)
        listen = settings.listen or settings.home.socket("execution")
        await serve(
            listen=listen,
            tls=node_tls(settings.home, listen),
            registrations=[
                Registration(
                    pb.DESCRIPTOR.services_by_name["ExecutionService"].full_name,
                    add_ExecutionServiceServicer_to_server,
                    ExecutionServicer(
                        manager,
                        Messaging(manager, fences),
                        Terminals(manager, fences),
                        starts,
                        draining=draining,
                        capabilities=provided,
                        allowance=settings.allowance,
                        images=settings.images,
                        agents=agents,
                    ),
                    {**CHECKS, pb.StartExecutionRequest.DESCRIPTOR.full_name: starts.check},
                ),
                metrics(meters),
                readiness(ready.check_resources, ready.check_sandbox),
            ],
            around=[meters.around],
            authenticator=cell_authenticator(home.cell_token()),
            draining=draining,
            reflection=settings.reflection,
        )


async def _remove_containers(runs: Path, every_s: float) -> None:
    """Remove the containers of runners that are gone, now and every `every_s` seconds, until cancelled."""
    while True:
        for execution_id, problem in await asyncio.to_thread(lambda: list(containers.remove_orphaned(runs))):
            log.warning("a container could not be removed", execution_id=execution_id, problem=problem)
        await asyncio.sleep(every_s)


def _control_groups(directory: Path) -> ControlGroupHierarchies:
    """Find where control groups can be made, and remove those that killed runners have left there."""
    name = f"boatyard-{hashlib.blake2s(os.fsencode(directory.resolve()), digest_size=6).hexdigest()}"
    groups = hierarchies.find_hierarchies(name)
    hierarchies.remove_orphaned(groups)
    missing = sorted(set(Controller) - set(groups))
    if missing:
        log.info("some limits are sampled, because there is no control group for them", without=missing)
    return groups


def _presets(settings: ExecutionSettings) -> Presets:
    """Read the agents that this machine knows by name. Raises StartError."""
    try:
        return Presets.load(settings.presets, settings.tools)
    except PresetError as error:
        raise StartError(f"{PRESETS_SETTING}: {error}") from error


def _admission(settings: ExecutionSettings, runs: Path, control_groups: ControlGroupHierarchies) -> Admission:
    memory = control_groups.get(Controller.MEMORY)
    return Admission(
        runs=runs,
        max_executions=settings.max_executions,
        memory_reserve_bytes=settings.memory_reserve_bytes,
        disk_reserve_bytes=settings.disk_reserve_bytes,
        load=settings.max_load,
        memory_group=None if memory is None else memory.home,
    )


def _warn_of_missing(provided: Iterable[Capability]) -> None:
    """Log what is missing at the start, not only when somebody needs it; tier `none` works without any of it."""
    for capability in provided:
        if not capability.provided_by and capability.name != CONTAINER:  # few need containers
            log.warning("does not work here", what=capability.name, why=capability.complaint)
