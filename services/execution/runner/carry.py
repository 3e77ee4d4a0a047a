"""One run from beginning to end."""

import math
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from services.common.sandbox.errors import SandboxError
from services.execution.egress.child import Egress, record
from services.execution.eventlog import EventWriter, Stream
from services.execution.model import Reason, Result, State
from services.execution.redaction.strand import Redactor
from services.execution.rundir import RunDirectory
from services.execution.runner import agent, verdict
from services.execution.runner.announcing import announce
from services.execution.runner.group import Group
from services.execution.runner.meter import Meter
from services.execution.runner.pump import Pump
from services.execution.runner.terminal import Terminal
from services.execution.runner.verdict import Verdict

_GRACE_S = 5.0
_RETRY_S = 0.01
_LEAVE_S = 0.1
"""How long we stay in the program's group after its start: to leave takes some ms, which its first output needs."""
_NEVER = math.inf


def carry(path: Path, access: bytes, group: Group | None) -> None:
    """Carry the run in `path`, unless somebody does or has. `access` is what reaches a model, if one is needed.

    This process is in `group`, an empty one otherwise, and leaves it.
    """
    os.chdir("/")
    told = _signals()
    run = RunDirectory(path)
    _complain_to(run.diary)
    lock = run.hold()
    if lock is None or run.result() is not None or (run.started_time_ns() is not None and not run.may_resume()):
        return
    if group is not None:
        run.record_group({str(task): path for task, path in group.directories.items()})
    with EventWriter(run.events) as writer:
        if run.needs_model():
            from services.execution.loop import carry as loop  # noqa: PLC0415 - what only a model's runner pays for

            result = loop.carry(run, writer, told, access, group)
        else:
            result = Carrier(run, writer, told, group).carry() if run.stop_request() is None else _never_began(run)
        result = replace(result, message=writer.redactor.text(result.message))
        writer.state_change(result.state, result.reason, result.message)
        writer.sync()
        run.write_result(replace(result, last_sequence=writer.last_sequence))
    run.forget_plan()


def _never_began(run: RunDirectory) -> Result:
    run.forget_plan()
    return result_of(verdict.cancelled(), None, None, None, 0)


class Carrier:
    """Holds what one run needs while its program runs."""

    def __init__(self, run: RunDirectory, writer: EventWriter, told: int, group: Group | None) -> None:
        """`told` becomes readable when a signal has arrived."""
        self._run = run
        self._writer = writer
        self._told = told
        self._group = group
        self._selector = selectors.DefaultSelector()
        self._plan = run.plan()
        writer.redactor = Redactor(self._plan.secrets)
        self._pump = Pump(writer, self._plan.bounds.max_output_bytes)
        size = self._plan.terminal
        self._terminal = None if size is None else Terminal(run.keyboard, size)
        self._stopping = False
        self._cause: Reason | None = None
        self._ask_at = self._kill_at = self._leave_at = _NEVER
        self._killed = False

    def carry(self) -> Result:
        """Start the program and stay with it until nothing of it is left."""
        start_time_ns = time.time_ns()
        began = time.monotonic()
        self._run.mark_started(start_time_ns)
        self._announce()
        bounds = self._plan.bounds
        try:
            if self._group is not None:
                self._group.limit(bounds.memory_bytes, bounds.processes)
            program = self._start()
        except (SandboxError, OSError) as error:
            return result_of(verdict.never_began(str(error)), start_time_ns, None, None, 0)
        self._leave_at = _NEVER if self._group is None else began + _LEAVE_S
        meter = Meter(bounds, self._writer, self._group, program.root)
        try:
            self._follow(program, meter, began)
        finally:
            left = program.finish()
            if program.egress is not None:
                record(self._writer, program.egress.close())
        for fd, stream in self._outputs(program):
            self._pump.drain(fd, stream)
        self._pump.end()
        status = -signal.SIGKILL if self._killed else program.exit_status
        end = self._judge(status, meter.at_end())
        result = result_of(end, start_time_ns, status, left, self._pump.output_bytes)
        return replace(result, end_verified_by=program.verified_by, vitals=meter.vitals())

    def _start(self) -> agent.Agent:
        if self._terminal is None:
            return agent.start(self._plan.sandbox, self._run.stdin, self._run.home, self._group)
        spec = self._terminal.wrap(self._plan.sandbox)
        return agent.start_on(spec, self._terminal.program_end, self._run.home, self._group)

    def _announce(self) -> None:
        self._writer.state_change(State.RUNNING)
        announce(self._writer, self._plan.sandbox)

    def _follow(self, program: agent.Agent, meter: Meter, began: float) -> None:
        """Pump and watch until the outermost process has ended."""
        self._watch(self._told, self._heed)
        for fd, stream in self._outputs(program):
            self._watch(fd, partial(self._receive, fd, stream))
        if self._terminal is not None:
            self._watch(self._terminal.keys, self._terminal.listen)
        if program.status is not None:
            self._watch(program.status, lambda: self._learn(program))
        if (egress := program.egress) is not None:
            self._watch(egress.decisions, lambda: self._record(egress))
        self._selector.register(program.exited, selectors.EVENT_READ, None)
        self._heed()
        while True:
            for key, _ in self._selector.select(self._until(meter, began)):
                if key.data is None:
                    return
                key.data()
            self._enforce(program, began)
            if not self._stopping and (limit := meter.look()) is not None:
                self._end(limit, 0.0)

    def _outputs(self, program: agent.Agent) -> list[tuple[int, Stream]]:
        """Where output comes from."""
        pipes = [(program.stdout, Stream.STDOUT), (program.stderr, Stream.STDERR)]
        return pipes if self._terminal is None else [(self._terminal.screen, Stream.STDOUT), *pipes]

    def _watch(self, fd: int, then: Callable[[], object]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, then)

    def _unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def _learn(self, program: agent.Agent) -> None:
        if not program.read_status() and program.status is not None:
            self._unwatch(program.status)

    def _record(self, egress: Egress) -> None:
        decisions, more = egress.read()
        record(self._writer, decisions)
        if not more:
            self._unwatch(egress.decisions)

    def _receive(self, fd: int, stream: Stream) -> None:
        if self._pump.receive(fd, stream) == 0:
            self._unwatch(fd)
        if self._pump.exceeded:
            self._end(Reason.OUTPUT_LIMIT, 0.0)

    def _heed(self) -> None:
        """Look for a request to stop. The request is written before its signal is sent, so none is missed."""
        signalled = drain(self._told)
        request = self._run.stop_request()
        if request is not None:
            self._end(None, request.grace_s)
        elif signalled:
            self._end(Reason.RUNNER_LOST, _GRACE_S)

    def _end(self, cause: Reason | None, grace_s: float) -> None:
        """Begin to end the program, or shorten the grace of an end that has begun."""
        now = time.monotonic()
        if not self._stopping:
            self._stopping, self._cause, self._ask_at = True, cause, now
        self._kill_at = min(self._kill_at, now + grace_s)

    def _until(self, meter: Meter, began: float) -> float | None:
        """Seconds until something is due; None for never."""
        bounds = self._plan.bounds
        times = [self._pump.due(), self._ask_at, self._leave_at]
        if self._terminal is not None:
            times.append(self._terminal.due())
        if not self._killed:
            times.append(self._kill_at)
        if not self._stopping:
            times.append(meter.due())
            times.append(began + bounds.wall_timeout_s)
            times.append(self._pump.last_output + (bounds.idle_timeout_s or _NEVER))
        first = min(times)
        return None if first == _NEVER else max(0.0, first - time.monotonic())

    def _enforce(self, program: agent.Agent, began: float) -> None:
        """Do what is due."""
        now, bounds = time.monotonic(), self._plan.bounds
        if now >= self._pump.due():
            self._pump.flush()
        if self._terminal is not None and now >= self._terminal.due():
            self._terminal.push()
        if self._group is not None and now >= self._leave_at:
            self._leave_at = _NEVER
            self._group.leave()
        if not self._stopping and now >= began + bounds.wall_timeout_s:
            self._end(Reason.TIMED_OUT, _GRACE_S)
        if not self._stopping and now >= self._pump.last_output + (bounds.idle_timeout_s or _NEVER):
            self._end(Reason.IDLE, _GRACE_S)
        if now >= self._ask_at:
            self._ask_at = _NEVER if program.terminate() else now + _RETRY_S
        if now >= self._kill_at and not self._killed:
            self._killed = True
            self._ask_at = _NEVER
            program.kill()

    def _judge(self, status: int | None, limit: Reason | None) -> Verdict:
        """What it comes to; `limit` is one that may be why the program failed."""
        if self._stopping:
            return verdict.forced(self._cause, self._plan.bounds) if self._cause else verdict.cancelled()
        if status is None:
            return verdict.never_began(self._pump.complaint.decode(errors="replace").strip())
        if status != 0 and limit is not None:
            return verdict.failed_at(limit, self._plan.bounds, status)
        return verdict.ended(status)


def result_of(
    end: Verdict, start_time_ns: int | None, status: int | None, processes_left: int | None, output_bytes: int
) -> Result:
    """The result but for its last sequence. `status` is an exit code, a negative signal, or None for neither."""
    return Result(
        state=end.state,
        reason=end.reason or "",
        message=end.message,
        exit_code=status if status is not None and status >= 0 else None,
        signal=-status if status is not None and status < 0 else None,
        processes_left=processes_left,
        start_time_ns=start_time_ns,
        end_time_ns=time.time_ns(),
        last_sequence=0,
        output_bytes=output_bytes,
    )


def _complain_to(diary: Path) -> None:
    """Let what this program has to say about itself outlive it."""
    fd = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)


def _signals() -> int:
    """Turn the signals that end a program into bytes to read; a handler, for what is ignored stays so in the agent."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return readable


def drain(fd: int) -> bool:
    """Whether a signal has arrived since the last look."""
    try:
        return bool(os.read(fd, 4096))
    except BlockingIOError:
        return False
