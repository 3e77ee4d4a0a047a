"""One run from beginning to end, with any engine."""

import os
import time
from dataclasses import replace
from pathlib import Path

from services.agent.providers import replayed_providers
from services.agent.settings import DEFAULT_ENGINE
from services.common.home import Home
from services.common.text import without_halves
from services.execution.cgroups.group import ControlGroup
from services.execution.credentials import Credentials
from services.execution.engine import RunContext, load
from services.execution.eventlog import EventWriter
from services.execution.model import Reason, State
from services.execution.own_tokens import own_tokens
from services.execution.processes import signals
from services.execution.processes.verdict import Verdict
from services.execution.rundir.directory import RunDirectory
from services.redaction.strand import Redactor
from services.sandbox.spec import Tier

_PATIENCE_S = 600.0
_PUSH_S = 0.5
_MESSAGE_CHARACTERS = 8192
_KEYS_LOST = (
    "the service was restarted, and did not get back the keys for this execution's models, which it does not store"
)

load(DEFAULT_ENGINE)  # while the runner waits for a run, so that most agents start at once


def run_execution(path: Path, credentials: Credentials, group: ControlGroup | None) -> None:
    """Run the plan in `path`, unless another runner does so or has done so.

    This process is the only one in `group`, and leaves it.
    """
    os.chdir("/")
    signal_fd = signals.listen()
    run = RunDirectory(path)
    _redirect_stderr(run.diary)
    lock = run.hold()
    if lock is None or run.result() is not None or (run.started_time_ns() is not None and not run.may_resume()):
        return
    plan = run.plan()
    if group is not None and plan.sandbox.tier is Tier.CONTAINER:
        # The container engine makes a group of its own for the container. And what it starts to make containers stays
        # for others, so it must not be ended with our group.
        group.leave()
        group = None
    if group is not None:
        run.record_group({str(controller): path for controller, path in group.directories.items()})
    with EventWriter(run.events, plan.bounds.disk_floor_bytes) as writer:
        writer.redactor = Redactor(own_tokens(Home.from_environment()))
        providers = () if not plan.has_door else replayed_providers() if plan.replay else credentials.providers
        context = RunContext(run, plan, writer, signal_fd, group, providers)
        if plan.records and not providers:
            writer.note("what its models are asked is not recorded: the agent has no providers", "model")
        if plan.has_door and not context.providers:
            result = Verdict(State.FAILED, Reason.RUNNER_LOST, _KEYS_LOST).result(run.started_time_ns())
        else:
            result = load(plan.engine).run(context)
        result = replace(result, message=_shown(writer.redactor.text(result.message)))
        writer.end()
        writer.state_change(result.state, result.reason, result.message)
        if lost := _dropped(writer, run):
            result = replace(result, message=f"{result.message}; {lost} of its last events are lost: the disk was full")
        writer.sync()
        run.write_result(replace(result, last_sequence=writer.last_sequence))
    run.delete_plan()
    run.forget_replay()


def _shown(message: str) -> str:
    """Return a message as others can read it: its agent may have said a part of it, of any length, and no Unicode."""
    return without_halves(message[:_MESSAGE_CHARACTERS])


def _dropped(writer: EventWriter, run: RunDirectory) -> int:
    """Wait for room for what is left of the events; return how many are given up when that takes too long.

    Most file systems have set that room aside. The wait ends early when somebody asks the run to end.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not writer.push():
        if time.monotonic() > deadline or run.stop_request() is not None:
            return writer.give_up()
        time.sleep(_PUSH_S)
    return 0


def _redirect_stderr(diary: Path) -> None:
    """Write this program's standard error to a file, which outlives it."""
    fd = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)
