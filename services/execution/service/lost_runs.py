"""Ends a run whose runner was killed: nothing is left running, the log is whole, and a result says what happened."""

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import structlog

from services.execution.cgroups.group import ControlGroup
from services.execution.door.ask_records import AskRecords
from services.execution.eventlog import EventWriter
from services.execution.eventlog.activity import read_activity
from services.execution.inbox.asks import Asks
from services.execution.model import MARK, EndVerification, ModelUse, Reason, Result, State, Vitals
from services.execution.processes.containers import ContainerDirectory
from services.execution.rundir.directory import RunDirectory
from services.sandbox.errors import SandboxUnavailableError

_GONE_WITHIN_S = 10.0
_DIARY_BYTES = 2000

log = structlog.get_logger()


def conclude(run: RunDirectory) -> Result | None:
    """Write the result that the runner could not write; None when a runner is alive after all. Blocks for some ms."""
    run.path.mkdir(mode=0o700, exist_ok=True)  # somebody may have deleted it
    lock = run.hold()
    if lock is None:
        return None
    try:
        if (result := run.result()) is not None:
            return result
        start_time_ns = run.started_time_ns()
        if start_time_ns is None:
            run.mark_started(time.time_ns())  # so that a runner that comes too late does not begin
        run.delete_plan()
        processes_left, verification, vitals = end_survivors(run)
        text = "the runner was lost, and its program was ended with it; what it had written is in the events"
        diary = _tail(run.diary)
        message = f"{text}. The runner's last words: {diary}" if diary else text
        with EventWriter(run.events) as writer:
            AskRecords(Asks(run.path), writer).end_all()
            writer.end()
            writer.state_change(State.FAILED, Reason.RUNNER_LOST, message)
            writer.sync()
            result = Result(
                state=State.FAILED,
                reason=Reason.RUNNER_LOST,
                message=message,
                exit_code=None,
                signal=None,
                processes_left=processes_left,
                start_time_ns=start_time_ns,
                end_time_ns=time.time_ns(),
                last_sequence=writer.last_sequence,
                output_bytes=writer.output_bytes,
                model_use=_model_use(run),
                end_verified_by=verification if processes_left == 0 else None,
                vitals=vitals,
            )
        run.write_result(result)
        run.delete_plan()
        return result
    finally:
        os.close(lock)


def _model_use(run: RunDirectory) -> ModelUse | None:
    """Return what the run's models have used; None when it had none."""
    use = read_activity(run.events).model_use()
    return use if use.usage or run.lives() else None


def end_survivors(run: RunDirectory) -> tuple[int, EndVerification, Vitals | None]:
    """Kill what the runner has left; return how many could not be ended, how we know, and what was used in total.

    The kernel ends a sandbox together with its runner. Without a sandbox, processes are found by their control group or
    by their mark. A container must be ended by its container engine.
    """
    container = ContainerDirectory(run.path)
    container.delete_secrets()
    if container.is_used():
        processes_left = 0
        try:
            # Once is enough: if the container is only being made now, `remove_orphaned` finds it later.
            container.remove()
        except SandboxUnavailableError as error:
            log.warning("a container may go on without its runner", execution_id=run.path.name, problem=str(error))
            processes_left = 1
        return processes_left, EndVerification.CONTAINER, None
    directories = run.group()
    if not directories:
        return _end_marked(run), EndVerification.ENVIRONMENT, None
    group = ControlGroup.of_lost_runner(directories)
    processes_left = group.end(_GONE_WITHIN_S)
    vitals = replace(group.read().vitals, memory_bytes=0, processes=0)
    group.remove()
    return max(processes_left, _end_marked(run)), EndVerification.CGROUP, vitals


def _end_marked(run: RunDirectory) -> int:
    mark = f"{MARK}={run.mark}".encode()
    deadline = time.monotonic() + _GONE_WITHIN_S
    while survivors := _marked(mark):
        if time.monotonic() > deadline:
            break
        for pid in survivors:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return len(survivors)


def _marked(mark: bytes) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    pids.append(int(entry.name))
    return pids


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_DIARY_BYTES:].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
