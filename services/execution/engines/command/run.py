"""A run whose agent is a program."""

import math
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from services.execution.egress.child import Egress, record
from services.execution.engine import RunContext
from services.execution.engines.command import claims
from services.execution.engines.command.acp.conversation import Conversation
from services.execution.engines.command.door_watch import DoorWatch
from services.execution.engines.command.judging import Transcript, concluded, conversation, judged, transcript
from services.execution.engines.command.preset import PresetTask
from services.execution.engines.command.sources import Sources
from services.execution.engines.command.terminal import Terminal
from services.execution.engines.command.termination import GRACE_S, Termination
from services.execution.eventlog import Stream
from services.execution.eventlog.activity import read_activity
from services.execution.model import SESSION_VARIABLE, ModelUse, Reason, Result, State
from services.execution.processes import agent, signals, verdict
from services.execution.processes.blame import blamed, reason_of, with_outage
from services.execution.processes.meter import Meter
from services.execution.processes.pump import Pump
from services.execution.processes.verdict import Verdict
from services.sandbox.errors import SandboxError

_LEAVE_S = 0.1
"""How long we stay in the program's group after its start: leaving takes some ms, and would delay its first output."""


def run_command(context: RunContext) -> Result:
    """Start the program of a run, and stay with it until none of its processes is left."""
    if context.run.stop_request() is not None:
        return verdict.cancelled().result(None)
    return CommandRun(context).result()


class CommandRun:
    """What one run needs while its program runs."""

    def __init__(self, context: RunContext) -> None:
        self._run = context.run
        self._writer = context.writer
        self._signal_fd = context.signal_fd
        self._group = context.group
        self._selector = selectors.DefaultSelector()
        self._sources = Sources(self._selector, self._writer)
        self._plan = context.plan
        self._door = DoorWatch(context, self._selector, self._sources)
        self._writer.redactor = self._writer.redactor.having(self._plan.secrets | self._door.secrets)
        size = self._plan.terminal
        # A plan of an earlier version, or for a line, has no task.
        self._task = None if self._plan.task is None else PresetTask.of(self._plan.task)
        self._talk = None if self._task is None else conversation(context, self._task)
        self._transcript: Transcript | None = self._talk
        if self._task is not None and self._talk is None:
            self._transcript = transcript(self._task, self._writer)
        self._pump = Pump(
            self._writer,
            self._plan.bounds.max_output_bytes,
            Stream.STDERR if size is None else Stream.STDOUT,
            record=self._writer.output if self._transcript is None else self._transcript.output,
        )
        self._terminal = None if size is None else Terminal(self._run.terminal_input, size)
        self._termination = Termination(self._ask_to_end)
        self._is_parting = False
        self._leave_at = math.inf

    def result(self) -> Result:
        """Start the program, and stay with it until none of its processes is left."""
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
            self._door.close()
            return verdict.never_began(str(error)).result(start_time_ns)
        self._leave_at = math.inf if self._group is None else began + _LEAVE_S
        meter = Meter(bounds, self._writer, self._group, program.root)
        try:
            self._follow(program, meter, began)
        finally:
            processes_left = program.finish()
            if program.egress is not None:
                record(self._writer, program.egress.close())
            self._door.close()
        for fd, stream in self._outputs(program):
            self._pump.drain(fd, stream)
        self._pump.end()
        if self._transcript is not None:
            self._transcript.end()
        status = -signal.SIGKILL if self._termination.killed else program.exit_status
        end = self._verdict(status, meter.at_end() or program.limit)
        result = with_outage(
            end.result(start_time_ns, status, processes_left, self._pump.output_bytes), self._door.trouble
        )
        result = replace(result, end_verified_by=program.verified_by, vitals=meter.vitals())
        session_id = "" if self._transcript is None else self._transcript.events.session_id
        return replace(result, model_use=self._model_use(), session_id=session_id)

    def _start(self) -> agent.Agent:
        spec, door = self._door.prepared(self._plan.sandbox)
        if self._talk is not None:
            program = agent.start_on(spec, self._talk.program_end, self._run, self._group, door)
            self._talk.begin()
            return program
        if self._terminal is None:
            return agent.start(spec, self._run, self._group, door)
        return agent.start_on(self._terminal.wrap(spec), self._terminal.program_end, self._run, self._group, door)

    def _model_use(self) -> ModelUse | None:
        """Return what is known of the agent's model: the door has counted the requests, and the agent says the rest.

        None for an agent that has asked no model, and says nothing of one.
        """
        said = None if self._transcript is None else self._transcript.events.model_use()
        if not self._plan.has_door:
            return said
        self._writer.push()  # it is counted by the events
        seen = read_activity(self._run.events).model_use()
        if said is None:
            return seen if seen.usage else None
        if (doubt := claims.difference(said, seen)) is not None:
            self._writer.note(doubt, "model")
        return replace(said, tokens=seen.tokens, cost_usd=seen.cost_usd, turns=seen.turns, usage=seen.usage)

    def _announce(self) -> None:
        self._writer.state_change(State.RUNNING)
        agent.announce(self._writer, self._plan.sandbox)
        if session := self._plan.sandbox.environment.get(SESSION_VARIABLE):
            self._writer.note(f"the agent may go on in its session: {session.decode()}", "session")
        if self._plan.no_door:
            self._writer.note(self._plan.no_door, "model")

    def _follow(self, program: agent.Agent, meter: Meter, began: float) -> None:
        """Move output and enforce bounds until the outermost process has ended."""
        self._watch(self._signal_fd, self._check_stop)
        for fd, stream in self._outputs(program):
            self._sources.add(fd, partial(self._receive, fd, stream))
        if self._terminal is not None:
            self._watch(self._terminal.keys, self._terminal.listen)
        if program.status is not None:
            self._watch(program.status, lambda: self._read_status(program))
        if (egress := program.egress) is not None:
            self._sources.add(egress.decisions, lambda: self._record_decisions(egress))
        self._door.watch()
        self._selector.register(program.exited, selectors.EVENT_READ, None)
        self._check_stop()
        while True:
            for key, _ in self._selector.select(self._seconds_until_due(meter, began)):
                if key.data is None:
                    return
                key.data()
            self._enforce(program, began)
            if not self._termination.has_begun and (limit := meter.look()) is not None:
                self._termination.begin(limit, 0.0)

    def _outputs(self, program: agent.Agent) -> list[tuple[int, Stream]]:
        """The descriptors that output is read from."""
        pipes = [(program.stdout, Stream.STDOUT), (program.stderr, Stream.STDERR)]
        return pipes if self._terminal is None else [(self._terminal.screen, Stream.STDOUT), *pipes]

    def _watch(self, fd: int, then: Callable[[], object]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, then)

    def _read_status(self, program: agent.Agent) -> None:
        if not program.read_status() and program.status is not None:
            self._selector.unregister(program.status)

    def _record_decisions(self, egress: Egress) -> None:
        decisions, more = egress.read()
        record(self._writer, decisions)
        if not more:
            self._sources.remove(egress.decisions)

    def _receive(self, fd: int, stream: Stream) -> None:
        if self._pump.receive(fd, stream) == 0:
            self._sources.remove(fd)
        if self._pump.exceeded:
            self._termination.begin(Reason.OUTPUT_LIMIT, 0.0)

    def _check_stop(self) -> None:
        """Look for a stop request. It is written before its signal is sent, so none is missed."""
        signalled = signals.arrived(self._signal_fd)
        request = self._run.stop_request()
        if request is not None:
            self._termination.begin(None, request.grace_s if self._talk is None else min(request.grace_s, GRACE_S))
        elif signalled:
            self._termination.begin(Reason.RUNNER_LOST, GRACE_S)

    def _seconds_until_due(self, meter: Meter, began: float) -> float | None:
        """Return the seconds until something is due; None for never."""
        bounds = self._plan.bounds
        times = [self._pump.due(), self._sources.due(), self._termination.due(), self._leave_at]
        if self._terminal is not None:
            times.append(self._terminal.due())
        if self._talk is not None:
            times.append(self._talk.due())
        if not self._termination.has_begun:
            times += (meter.due(), began + bounds.wall_timeout_s, self._idle_at(), self._without_model_at())
        earliest = min(times)
        return None if earliest == math.inf else max(0.0, earliest - time.monotonic())

    def _enforce(self, program: agent.Agent, began: float) -> None:
        """Do whatever is due."""
        now, bounds = time.monotonic(), self._plan.bounds
        if now >= self._pump.due():
            self._pump.flush()
        self._sources.mind()
        if self._terminal is not None and now >= self._terminal.due():
            self._terminal.push()
        if self._talk is not None:
            self._converse(self._talk)
        if self._group is not None and now >= self._leave_at:
            self._leave_at = math.inf
            self._group.leave()
        if not self._termination.has_begun:
            if now >= began + bounds.wall_timeout_s:
                self._termination.begin(Reason.TIMED_OUT, GRACE_S)
            elif (trouble := self._door.trouble) is not None and now >= self._without_model_at():
                self._termination.begin(reason_of(trouble), GRACE_S)
            elif now >= self._idle_at():
                self._termination.begin(Reason.IDLE, GRACE_S)
        self._termination.advance(program)

    def _converse(self, talk: Conversation) -> None:
        """Say what is due. When all is said, the program has some seconds in which to end by itself."""
        talk.act()
        if talk.is_over and not self._is_parting:
            talk.close()
            self._is_parting = not self._termination.has_begun
            self._termination.begin(None, 2 * GRACE_S, ask_in_s=GRACE_S)

    def _ask_to_end(self, program: agent.Agent) -> bool:
        """Ask the program to end. One that is spoken to is asked to end its turn, and ends when that is done."""
        return (self._talk is not None and self._talk.cancel()) or program.terminate()

    def _idle_at(self) -> float:
        """When the program will have been silent for too long, on the monotonic clock; never while it is not heard."""
        if self._sources.is_paused or (self._talk is not None and self._talk.is_waiting):
            return math.inf
        answered_at = 0.0 if self._talk is None else self._talk.answered_at
        return max(self._pump.last_output, answered_at) + (self._plan.bounds.idle_timeout_s or math.inf)

    def _without_model_at(self) -> float:
        """When to end the program for want of a model, on the monotonic clock. One that is no preset decides itself."""
        trouble = self._door.trouble
        has_to_end = self._task is not None or (trouble is not None and bool(trouble.reason))
        return self._door.ends_at if has_to_end else math.inf

    def _verdict(self, status: int | None, limit: Reason | None) -> Verdict:
        """Return the verdict on the run; `limit` is a limit that may be why the program failed."""
        return blamed(self._own_verdict(status, limit), self._door.trouble)

    def _own_verdict(self, status: int | None, limit: Reason | None) -> Verdict:
        if self._talk is not None and self._talk.is_over and (self._is_parting or not self._termination.has_begun):
            return concluded(self._talk.problem())
        if self._termination.has_begun:
            cause = self._termination.cause
            return verdict.cancelled() if cause is None else verdict.forced(cause, self._plan.bounds)
        if status is None:
            return verdict.never_began(self._pump.complaint.decode(errors="replace").strip())
        if status != 0 and limit is not None:
            return verdict.failed_at(limit, self._plan.bounds, status)
        ended = verdict.ended(status, self._pump.complaint)
        if self._task is None or self._transcript is None:
            return ended
        return judged(ended, status, self._task, self._transcript.problem())
