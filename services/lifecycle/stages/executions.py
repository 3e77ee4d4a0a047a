"""Starts, follows and stops programs at the execution service. Whatever may be running is followed to its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from services.agent.settings import AgentSettings, CommandEngine
from services.common.errors import Exhausted, ServiceError
from services.common.room import DISK_FULL
from services.lifecycle.failures import JobCancelled
from services.lifecycle.model.ids import workspace_of
from services.lifecycle.model.node_work import Base, Launch, Layout, Run
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import ExecutionState, Purpose
from services.lifecycle.nodes import NodeLost
from services.lifecycle.nodes.executions import Remind, Seen
from services.lifecycle.run import JobRun
from services.sandbox.spec import Network, Tier

_TRIES = 3
_LOST = frozenset({"RUNNER_LOST", "SANDBOX_FAILED", DISK_FULL})


async def begin(job: JobRun, execution_id: str, launch: Launch) -> Run:
    """Start an execution once, and return it when its program has begun; an existing one is returned as it is.

    When the job is cancelled nothing is started, and a started one is stopped. Raises JobCancelled when there is none.
    """
    try:
        job.check_cancelled()
        return await _begun(job, await job.nodes.executions.start(execution_id, launch), launch)
    except JobCancelled:
        run = await stopped(job, execution_id)  # it may have been started before a restart, or the response was lost
        if run is None:
            raise
        return run


async def _begun(job: JobRun, run: Run, launch: Launch) -> Run:
    if run.state is not ExecutionState.PENDING:
        return run
    remind = partial(job.nodes.executions.remind, run.execution_id, launch)
    return await job.unless_cancelled(job.nodes.executions.wait(run.execution_id, until_started=True, remind=remind))


async def end_of(job: JobRun, execution_id: str, seen: Seen | None = None, remind: Remind | None = None) -> Run:
    """Follow an execution to its end, and stop it when the job is cancelled. See `ExecutionClient.wait`."""
    try:
        return await job.unless_cancelled(job.nodes.executions.wait(execution_id, seen=seen, remind=remind))
    except JobCancelled:
        with job.uninterrupted():
            await job.nodes.executions.stop(execution_id)
            return await job.nodes.executions.wait(execution_id)


async def stopped(job: JobRun, execution_id: str) -> Run | None:
    """Stop an execution, and return how it ended; None when it was never started."""
    with job.uninterrupted():
        await job.nodes.executions.stop(execution_id)
        if await job.nodes.executions.find(execution_id) is None:
            return None
        return await job.nodes.executions.wait(execution_id)


def noted(note: ExecutionNote, run: Run) -> ExecutionNote:
    """Return the note with the run's state in it."""
    return replace(
        note,
        state=run.state,
        reason=run.reason,
        message=run.message,
        start_time=run.start_time,
        end_time=run.end_time,
        output=replace(
            note.output,
            exit_code=run.exit_code,
            signal=run.signal,
            output_bytes=run.output_bytes,
            cpu_seconds=run.vitals.cpu_seconds if run.vitals else None,
            memory_peak_bytes=run.vitals.memory_peak_bytes if run.vitals else None,
            processes_left=run.processes_left,
        ),
    )


@dataclass(frozen=True, slots=True)
class AuxiliaryExecution:
    """A line for /bin/sh that runs beside the agent's work: a hook or a check.

    It runs in a new workspace, made from `base` or empty; with `layout`, in that workspace of `base`, which stays.
    """

    execution_id: str
    purpose: Purpose
    line: str
    seconds: float
    base: Base | None = None
    layout: Layout | None = None
    prompt: bytes = b""
    environment: Mapping[str, bytes] = field(default_factory=dict)


async def run_auxiliary(job: JobRun, auxiliary: AuxiliaryExecution) -> Run:
    """Run an auxiliary execution, remove the workspace that was made for it, and return how it ended.

    When its runner or sandbox was lost, that says nothing of the work: it is run again under another id, up to three
    times in all. Raises JobCancelled, with nothing left, when the job is cancelled, and Exhausted (DISK_FULL).
    """
    tries = (auxiliary.execution_id, *(f"{auxiliary.execution_id}-try-{number}" for number in range(2, _TRIES + 1)))
    for execution_id in tries:
        run = await _run_once(job, replace(auxiliary, execution_id=execution_id))
        if run.reason not in _LOST:
            break
    if run.reason == DISK_FULL:
        raise Exhausted(DISK_FULL, run.message, quota="disk")
    return run


async def _run_once(job: JobRun, auxiliary: AuxiliaryExecution) -> Run:
    workspace_id = job.workspace_id if auxiliary.layout else workspace_of(auxiliary.execution_id)
    note = ExecutionNote(auxiliary.execution_id, auxiliary.purpose, workspace_id)
    try:
        run = await job.nodes.executions.find(auxiliary.execution_id)
        if run is None:
            run = await _begin(job, auxiliary, note)
        await job.note(noted(note, run))
        run = await end_of(job, auxiliary.execution_id)
    except (JobCancelled, ServiceError) as error:
        if not isinstance(error, NodeLost):
            await _remove(job, auxiliary)
        raise
    await _remove(job, auxiliary)
    await job.note(replace(noted(note, run), workspace_id=""))
    job.check_cancelled()
    return run


async def _begin(job: JobRun, auxiliary: AuxiliaryExecution, note: ExecutionNote) -> Run:
    base, layout = auxiliary.base, auxiliary.layout
    if layout is None:
        layout = await job.interruptible(job.nodes.workspaces.create(note.workspace_id, base, job.spec))
    await job.note(note)
    ours = {"BOATYARD_JOB_ID": job.spec.job_id.encode(), "BOATYARD_EXECUTION_ID": note.execution_id.encode()}
    launch = Launch(
        purpose=auxiliary.purpose,
        layout=layout,
        agent=settings_of_line(auxiliary.line, auxiliary.seconds, job.spec.agent),
        prompt=auxiliary.prompt,
        read_only_paths=() if base is None else base.read_only_paths,
        environment={**auxiliary.environment, **ours},
        redacted=job.secrets,
    )
    return await begin(job, note.execution_id, launch)


async def _remove(job: JobRun, auxiliary: AuxiliaryExecution) -> None:
    if auxiliary.layout is None:
        with job.uninterrupted():
            await job.nodes.workspaces.delete(workspace_of(auxiliary.execution_id))


def settings_of_line(line: str, seconds: float, agent: AgentSettings) -> AgentSettings:
    """Return the settings of a line for /bin/sh: isolated as `agent` is, and without network."""
    return AgentSettings(
        engine=CommandEngine(line=line),
        timeout=timedelta(seconds=seconds),
        sandbox_tier=agent.tier,
        network=Network.NONE,
        image=agent.image if agent.tier is Tier.CONTAINER else None,
    )


def exited(run: Run) -> bool:
    """True when a program exited by itself: one that was stopped has an exit code too."""
    return run.exit_code is not None and run.reason in {"", "AGENT_FAILED"}


def last_lines(tail: bytes, max_bytes: int) -> str:
    """Return the last whole lines that fit into `max_bytes`, as text; of a longer last line, its end."""
    whole = tail.decode(errors="replace").strip()
    text = whole.encode()[-max_bytes:].decode(errors="ignore")
    if len(text) < len(whole) and "\n" in text:
        text = text.partition("\n")[2]
    return text.strip()
