"""`boatyard down`: ends all processes of a data directory, whatever was killed before."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from services.common.errors import ServiceError, StartError
from services.common.home import Home
from services.common.lock import FileLock, LockHeldError, holder, is_held
from services.common.supervision import END_AGENTS_SIGNAL
from services.supervisor.clients import Agents, wait_until_serving
from services.supervisor.keeper import Say
from services.supervisor.plan import EVERY_SERVICE, EXECUTION, CellPlan, cell_file, service_lock, supervisor_lock
from services.supervisor.process import ServiceProcess, log_tail

AGENT_GRACE_S = 5.0

_SUPERVISOR_ENDS_WITHIN_S = 60.0
_SERVICE_DRAINS_WITHIN_S = 20.0
_KILLED_WITHIN_S = 10.0
_SERVING_WITHIN_S = 30.0
_PAUSE_S = 0.02


async def down(home: Home, say: Say) -> None:
    """End the supervisor, the services and the agents, and return when all have ended.

    Raises StartError when something does not end; the message says what.
    """
    if not (home.root / "run").is_dir():
        say(f"no cell has ever run in {home.root}")
        return
    pid = holder(supervisor_lock(home))
    if pid is not None:
        say(f"stopping the cell in {home.root} (process {pid})")
        await _end_supervisor(home, pid)
    for service in EVERY_SERVICE:
        await _end_service(home, service)
    try:
        lock = FileLock(supervisor_lock(home))  # so that nobody starts the cell now
    except LockHeldError as error:
        raise StartError(f"process {error.pid} has started the cell again in the meantime") from None
    try:
        ended_in_order = pid is not None and not cell_file(home).exists()
        if not ended_in_order or runners(home):
            await end_agents(home, AGENT_GRACE_S)
        cell_file(home).unlink(missing_ok=True)
    finally:
        lock.release()
    say(f"no process of {home.root} is running")


async def end_agents(home: Home, grace_s: float) -> None:
    """End the agents that are left in a data directory without a running cell.

    Only the execution service can do that, so it is started for a moment.
    """
    if (home.root / EXECUTION / "execution.db").exists():
        home.cell_token()  # refused here, and not by the service that is started for a moment
        reading, writing = os.pipe()
        try:
            plan = _plan_of_execution_service(home)
            process = await ServiceProcess.start(plan, EXECUTION, reading)
            try:
                await _wait_until_serving(plan, process)
                await Agents(home, plan.addresses[EXECUTION]).end_all(grace_s)
            except ServiceError as error:
                raise StartError(f"agents may still be running: {error.message}") from error
            finally:
                await process.stop()
        finally:
            os.close(reading)
            os.close(writing)
    if not await _within(_KILLED_WITHIN_S, lambda: not runners(home)):
        raise StartError(f"these runner processes do not end: {', '.join(map(str, runners(home)))}")


def runners(home: Home) -> list[int]:
    """Return the ids of processes that run, or wait to run, an execution of this data directory."""
    home_variable = b"BOATYARD_HOME=" + os.fsencode(home.root)
    pids = []
    for directory in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended in the meantime, or is another user's
            if (
                directory.name.isdigit()
                and b"services.execution.runner" in (directory / "cmdline").read_bytes().split(b"\0")
                and home_variable in (directory / "environ").read_bytes().split(b"\0")
            ):
                pids.append(int(directory.name))
    return pids


async def _end_supervisor(home: Home, pid: int) -> None:
    def gone() -> bool:
        return holder(supervisor_lock(home)) != pid

    for number, patience_s in ((END_AGENTS_SIGNAL, _SUPERVISOR_ENDS_WITHIN_S), (signal.SIGKILL, _KILLED_WITHIN_S)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if await _within(patience_s, gone):
            return
    raise StartError(f"process {pid}, which runs the cell, does not end")


async def _end_service(home: Home, service: str) -> None:
    """End a service whose supervisor is gone: it drains by itself, or is killed."""
    lock = service_lock(home, service)
    if await _within(_SERVICE_DRAINS_WITHIN_S, lambda: not is_held(lock)):
        return
    pid = holder(lock)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not await _within(_KILLED_WITHIN_S, lambda: not is_held(lock)):
        raise StartError(f"{service} (process {pid}) does not end")


def _plan_of_execution_service(home: Home) -> CellPlan:
    address = home.socket(EXECUTION)
    settings = {"BOATYARD_HOME": str(home.root), "BOATYARD_EXECUTION_LISTEN": address}
    return CellPlan(home, {EXECUTION: address}, {**os.environ, **settings})


async def _wait_until_serving(plan: CellPlan, process: ServiceProcess) -> None:
    serving = asyncio.create_task(wait_until_serving(plan.home, plan.addresses[EXECUTION]))
    ended = asyncio.create_task(process.wait())
    try:
        await asyncio.wait({serving, ended}, timeout=_SERVING_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            log = plan.log_file(EXECUTION)
            raise StartError(
                f"agents may still be running: the execution service does not start; {log}:\n{log_tail(log)}"
            )
    finally:
        for task in (serving, ended):
            task.cancel()
        await asyncio.gather(serving, ended, return_exceptions=True)


async def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Wait for a condition; return True when it holds in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_PAUSE_S)
    return True
