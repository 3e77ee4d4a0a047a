"""A model's run from beginning to end, or from where an earlier runner was lost."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from services.agent.providers import ModelWire, keys_by_name
from services.execution.door.ask_records import AskRecords
from services.execution.engine import RunContext
from services.execution.engines.anthropic.history import History
from services.execution.engines.anthropic.inner_door import InnerDoor
from services.execution.engines.anthropic.recorder import Recorder
from services.execution.engines.anthropic.task import ModelTask
from services.execution.engines.anthropic.tool_process import NoToolProcessError, ToolProcess
from services.execution.eventlog.activity import ModelActivity, read_activity
from services.execution.inbox.messages import Inbox
from services.execution.model import Reason, Result, State
from services.execution.processes import agent, signals, verdict
from services.execution.processes.blame import blamed, with_outage
from services.execution.processes.meter import Meter
from services.execution.processes.pump import Pump
from services.execution.processes.verdict import Verdict
from services.sandbox.errors import SandboxError

if TYPE_CHECKING:
    from services.execution.engines.anthropic.client import ModelClient

_NEVER = float("inf")
_LOOK_S = 0.5
_NO_PROVIDER = "the agent has no provider of its engine's wire: an earlier version let it ask with a key of the service"


def run_agent_loop(context: RunContext) -> Result:
    """Start or resume the model of a run, and stay with it until no process of the run is left."""
    run, plan, writer = context.run, context.plan, context.writer
    keys = {name: key.encode() for name, key in keys_by_name(context.providers).items()}
    writer.redactor = writer.redactor.having(plan.secrets | keys)
    before = read_activity(run.events)
    attempt = run.begin_life(time.time_ns())
    if attempt == 1:
        writer.state_change(State.RUNNING)
    else:
        writer.note(f"the runner was lost, and a new one goes on where it was: number {attempt}", "resume")
    agent.announce(writer, plan.sandbox)
    return asyncio.run(AgentLoop(context).result(before))


class AgentLoop:
    """What one run needs while its model works."""

    def __init__(self, context: RunContext) -> None:
        run, plan, writer, group = context.run, context.plan, context.writer, context.group
        self._run = run
        self._plan = plan
        self._writer = writer
        self._signal_fd = context.signal_fd
        self._group = group
        self._asks = None if context.asks is None else AskRecords(context.asks, writer)
        self._tapes = context.tapes()
        self._providers = [one for one in context.providers if one.wire is ModelWire.MESSAGES]
        self._pump = Pump(writer, plan.bounds.max_output_bytes)
        self._tools = ToolProcess(plan.sandbox, run, self._pump, writer, group)
        self._meter = Meter(plan.bounds, writer, group, self._tools.root)
        self._start_time_ns = run.started_time_ns() or time.time_ns()
        # A resumed run has what is left of the first runner's time.
        self._end_at = time.monotonic() + plan.bounds.wall_timeout_s - (time.time_ns() - self._start_time_ns) / 1e9
        self._door: InnerDoor | None = None
        self._stopped = asyncio.Event()
        self._cause: Reason | None = None

    async def result(self, before: ModelActivity) -> Result:
        """Run the loop until no process of the run is left."""
        asyncio.get_running_loop().add_reader(self._signal_fd, self._check_stop)
        self._check_stop()
        try:
            end = await self._verdict(before)
        finally:
            Inbox(self._run.path).close()
            self._tools.end()
            self._writer.end()  # what it used is counted by its events
        trouble = None if self._door is None else self._door.outage
        result = blamed(end, trouble).result(
            self._start_time_ns, processes_left=self._tools.processes_left, output_bytes=self._writer.output_bytes
        )
        self._meter.at_end()
        return replace(
            with_outage(result, trouble),
            model_use=read_activity(self._run.events).model_use(),
            end_verified_by=self._tools.verified_by,
            vitals=self._meter.vitals(),
        )

    async def _verdict(self, before: ModelActivity) -> Verdict:
        if self._stopped.is_set():
            return self._forced(self._cause)
        if not self._providers:
            return Verdict(State.FAILED, Reason.MODEL_FAILED, _NO_PROVIDER)
        try:
            if self._group is not None:
                self._group.limit(self._plan.bounds.memory_bytes, self._plan.bounds.processes)
            self._tools.start()  # it starts while we import the large modules below
        except (SandboxError, OSError) as error:
            return verdict.never_began(str(error))
        recorder = Recorder(self._writer, before)
        patience_s = 0.0 if self._plan.replay else self._plan.bounds.model_patience_s
        common = (self._providers, recorder, patience_s, self._tapes)
        self._door = InnerDoor(*common, asks=self._asks, first_byte_s=self._plan.bounds.model_first_byte_s)
        try:
            return await self._converse(recorder, self._door)
        finally:
            await self._door.close()

    async def _converse(self, recorder: Recorder, door: InnerDoor) -> Verdict:
        # These imports take a second, in which the sandbox is made.
        from services.execution.engines.anthropic.client import ModelClient  # noqa: PLC0415
        from services.execution.engines.anthropic.conversation import Conversation  # noqa: PLC0415

        task = ModelTask(**(self._plan.task or {}))
        try:
            await self._tools.ready()
        except NoToolProcessError as error:
            return verdict.never_began(str(error))
        history = History(self._run.history)
        model = ModelClient(*door.open(), task, recorder, door)
        conversation = Conversation(task, history, model, self._tools, recorder, inbox=Inbox(self._run.path))
        try:
            return await self._bounded(conversation.run(), model)
        finally:
            recorder.end_text()
            await model.close()
            history.close()

    async def _bounded(self, work: Coroutine[Any, Any, Verdict], model: "ModelClient") -> Verdict:
        """Wait for the end of the work, or end it when it must end: the connection to the model closes with it."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stopped.wait())
        try:
            while not task.done():
                if self._stopped.is_set():
                    return self._forced(self._cause)
                if time.monotonic() >= self._end_at:
                    return self._forced(Reason.TIMED_OUT)
                if (limit := self._meter.look()) is not None:
                    return self._forced(limit)
                if time.monotonic() >= self._idle_at(model):
                    seconds = self._plan.bounds.idle_timeout_s
                    return Verdict(State.FAILED, Reason.IDLE, f"ended by force: the model was silent for {seconds:g} s")
                timeout = min(self._end_at, self._idle_at(model), self._meter.due()) - time.monotonic()
                await asyncio.wait({task, stopped}, timeout=min(timeout, _LOOK_S), return_when=asyncio.FIRST_COMPLETED)
            return task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.wait({task, stopped})

    def _idle_at(self, model: "ModelClient") -> float:
        """When the model will have been silent for too long; the time that tools take is bounded elsewhere."""
        idle = self._plan.bounds.idle_timeout_s
        return _NEVER if idle is None or model.last_sign_at is None else model.last_sign_at + idle

    def _check_stop(self) -> None:
        """Look for a stop request. No grace period is needed: whatever the agent has to keep is on disk."""
        signalled = signals.arrived(self._signal_fd)
        if self._run.stop_request() is not None:
            self._stopped.set()
        elif signalled:
            self._cause = Reason.RUNNER_LOST
            self._stopped.set()

    def _forced(self, cause: Reason | None) -> Verdict:
        return verdict.cancelled() if cause is None else verdict.forced(cause, self._plan.bounds)
