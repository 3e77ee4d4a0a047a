"""A run whose agent is a program."""

import math
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from services.execution.egress.child import Egress, record
from services.execution.eventlog import EventWriter, Stream
from services.execution.model import Reason, Result, State
from services.execution.redaction.strand import Redactor
from services.execution.rundir import RunDirectory
from services.execution.runner import agent, signals, verdict
from services.execution.runner.announcing import announce
from services.execution.runner.ending import GRACE_S, Ending
from services.execution.runner.group import Group
from services.execution.runner.meter import Meter
from services.execution.runner.pump import Pump
from services.execution.runner.terminal import Terminal
from services.execution.runner.verdict import Verdict
from services.sandbox.errors import SandboxError

_LEAVE_S = 0.1
"""How long we stay in the program's group after its start: to leave takes some ms, which its first output needs."""


def carry(run: RunDirectory, writer: EventWriter, told: int, group: Group | None) -> Result:
    """Carry a run whose lock is held. `told` becomes readable when a signal has arrived."""
    if run.stop_request() is not None:
        return verdict.cancelled().result(None)
    return _Carrier(run, writer, told, group).carry()


class _Carrier:
    """Holds what one run needs while its program runs."""

    def __init__(self, run: RunDirectory, writer: EventWriter, told: int, group: Group | None) -> None:
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
        self._ending = Ending()
        self._leave_at = math.inf

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
            return verdict.never_began(str(error)).result(start_time_ns)
        self._leave_at = math.inf if self._group is None else began + _LEAVE_S
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
        status = -signal.SIGKILL if self._ending.killed else program.exit_status
        end = self._judge(status, meter.at_end() or program.limit)
        result = end.result(start_time_ns, status, left, self._pump.output_bytes)
        return replace(result, end_verified_by=program.verified_by, vitals=meter.vitals())

    def _start(self) -> agent.Agent:
        if self._terminal is None:
            return agent.start(self._plan.sandbox, self._run, self._group)
        spec = self._terminal.wrap(self._plan.sandbox)
        return agent.start_on(spec, self._terminal.program_end, self._run, self._group)

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
            if not self._ending.has_begun and (limit := meter.look()) is not None:
                self._ending.begin(limit, 0.0)

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
            self._ending.begin(Reason.OUTPUT_LIMIT, 0.0)

    def _heed(self) -> None:
        """Look for a request to stop. The request is written before its signal is sent, so none is missed."""
        signalled = signals.arrived(self._told)
        request = self._run.stop_request()
        if request is not None:
            self._ending.begin(None, request.grace_s)
        elif signalled:
            self._ending.begin(Reason.RUNNER_LOST, GRACE_S)

    def _until(self, meter: Meter, began: float) -> float | None:
        """Seconds until something is due; None for never."""
        bounds = self._plan.bounds
        times = [self._pump.due(), self._ending.due(), self._leave_at]
        if self._terminal is not None:
            times.append(self._terminal.due())
        if not self._ending.has_begun:
            times += (meter.due(), began + bounds.wall_timeout_s, self._idle_at())
        first = min(times)
        return None if first == math.inf else max(0.0, first - time.monotonic())

    def _enforce(self, program: agent.Agent, began: float) -> None:
        """Do what is due."""
        now, bounds = time.monotonic(), self._plan.bounds
        if now >= self._pump.due():
            self._pump.flush()
        if self._terminal is not None and now >= self._terminal.due():
            self._terminal.push()
        if self._group is not None and now >= self._leave_at:
            self._leave_at = math.inf
            self._group.leave()
        if not self._ending.has_begun:
            if now >= began + bounds.wall_timeout_s:
                self._ending.begin(Reason.TIMED_OUT, GRACE_S)
            elif now >= self._idle_at():
                self._ending.begin(Reason.IDLE, GRACE_S)
        self._ending.go_on(program)

    def _idle_at(self) -> float:
        """When the program will have written nothing for too long."""
        return self._pump.last_output + (self._plan.bounds.idle_timeout_s or math.inf)

    def _judge(self, status: int | None, limit: Reason | None) -> Verdict:
        """What it comes to; `limit` is one that may be why the program failed."""
        if self._ending.has_begun:
            cause = self._ending.cause
            return verdict.cancelled() if cause is None else verdict.forced(cause, self._plan.bounds)
        if status is None:
            return verdict.never_began(self._pump.complaint.decode(errors="replace").strip())
        if status != 0 and limit is not None:
            return verdict.failed_at(limit, self._plan.bounds, status)
        return verdict.ended(status)
