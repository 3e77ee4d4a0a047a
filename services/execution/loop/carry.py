"""A model's run from beginning to end, or from where an earlier runner was lost: `runner.command`, for the engine."""

import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from services.execution.eventlog import EventWriter
from services.execution.loop.access import Access
from services.execution.loop.hands import Hands, NoHandsError
from services.execution.loop.history import History
from services.execution.loop.models import Models
from services.execution.loop.recorder import Recorder
from services.execution.model import Plan, Reason, Result, State
from services.execution.redaction.strand import Redactor
from services.execution.rundir import RunDirectory
from services.execution.runner import signals, verdict
from services.execution.runner.announcing import announce
from services.execution.runner.group import Group
from services.execution.runner.meter import Meter
from services.execution.runner.pump import Pump
from services.execution.runner.verdict import Verdict
from services.execution.talk import Talk
from services.execution.tally import Tally, tally
from services.sandbox.errors import SandboxError

if TYPE_CHECKING:
    from services.execution.loop.asking import Model

_NEVER = float("inf")
_LOOK_S = 0.5


def carry(run: RunDirectory, writer: EventWriter, told: int, access: bytes, group: Group | None) -> Result:
    """Carry a run whose lock is held. `told` becomes readable when a signal has arrived."""
    plan, reach = run.plan(), Access.from_bytes(access)
    key = {} if reach is None else {"ANTHROPIC_API_KEY": reach.api_key.encode()}
    writer.redactor = Redactor(plan.secrets | key)
    before = tally(run.events)
    life = run.begin_life(time.time_ns())
    if life == 1:
        writer.state_change(State.RUNNING)
    else:
        writer.note(f"the runner was lost, and a new one goes on where it was: number {life}", "resume")
    announce(writer, plan.sandbox)
    return asyncio.run(Carrier(run, plan, writer, told, group).carry(reach, before))


class Carrier:
    """Holds what one run needs while its model works."""

    def __init__(self, run: RunDirectory, plan: Plan, writer: EventWriter, told: int, group: Group | None) -> None:
        self._run = run
        self._plan = plan
        self._writer = writer
        self._told = told
        self._group = group
        self._pump = Pump(writer, plan.bounds.max_output_bytes)
        self._hands = Hands(plan.sandbox, run, self._pump, writer, group)
        self._meter = Meter(plan.bounds, writer, group, self._hands.root)
        self._start_time_ns = run.started_time_ns() or time.time_ns()
        # A run that goes on has what its first runner left of the time.
        self._end_at = time.monotonic() + plan.bounds.wall_timeout_s - (time.time_ns() - self._start_time_ns) / 1e9
        self._stopped = asyncio.Event()
        self._cause: Reason | None = None

    async def carry(self, access: Access | None, before: Tally) -> Result:
        """Stay until nothing of the run is left."""
        asyncio.get_running_loop().add_reader(self._told, self._heed)
        self._heed()
        try:
            end = await self._verdict(access, before)
        finally:
            Talk(self._run.path).close()
            self._hands.end()
        result = end.result(
            self._start_time_ns, processes_left=self._hands.processes_left, output_bytes=self._writer.output_bytes
        )
        self._meter.at_end()
        return replace(
            result,
            model_use=tally(self._run.events).model_use(),
            end_verified_by=self._hands.verified_by,
            vitals=self._meter.vitals(),
        )

    async def _verdict(self, access: Access | None, before: Tally) -> Verdict:
        if self._stopped.is_set():
            return self._forced(self._cause)
        if access is None:
            text = "the execution service has no ANTHROPIC_API_KEY any more: set it, and start the service again"
            return Verdict(State.FAILED, Reason.MODEL_FAILED, text)
        try:
            if self._group is not None:
                self._group.limit(self._plan.bounds.memory_bytes, self._plan.bounds.processes)
            self._hands.start()  # it starts while we import what is large
        except (SandboxError, OSError) as error:
            return verdict.never_began(str(error))
        os.environ.update(access.environment)
        models = Models.load(access.models_file)
        recorder = Recorder(self._writer, before, models)
        return await self._converse(access, models, recorder)

    async def _converse(self, access: Access, models: Models, recorder: Recorder) -> Verdict:
        from services.execution.loop.asking import Model  # noqa: PLC0415 - a second, in which the sandbox is made
        from services.execution.loop.conversation import Conversation  # noqa: PLC0415

        task = self._plan.task
        if task is None:
            raise RuntimeError("the plan has no task")
        try:
            await self._hands.ready()
        except NoHandsError as error:
            return verdict.never_began(str(error))
        history = History(self._run.history)
        model = Model(access, task, models, recorder)
        conversation = Conversation(task, history, model, self._hands, recorder, talk=Talk(self._run.path))
        try:
            return await self._bounded(conversation.run(), model)
        finally:
            recorder.end_text()
            await model.close()
            history.close()

    async def _bounded(self, work: Coroutine[Any, Any, Verdict], model: "Model") -> Verdict:
        """Wait for the work's end, or end it when it must: the connection to the model closes with it."""
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
                until = min(self._end_at, self._idle_at(model), self._meter.due()) - time.monotonic()
                await asyncio.wait({task, stopped}, timeout=min(until, _LOOK_S), return_when=asyncio.FIRST_COMPLETED)
            return task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.wait({task, stopped})

    def _idle_at(self, model: "Model") -> float:
        """When the model will have been silent for too long; a tool may take as long as tools may."""
        idle = self._plan.bounds.idle_timeout_s
        return _NEVER if idle is None or model.heard is None else model.heard + idle

    def _heed(self) -> None:
        """Look for a request to stop. There is nothing to be polite to: what the agent has to keep is on the disk."""
        signalled = signals.arrived(self._told)
        if self._run.stop_request() is not None:
            self._stopped.set()
        elif signalled:
            self._cause = Reason.RUNNER_LOST
            self._stopped.set()

    def _forced(self, cause: Reason | None) -> Verdict:
        return verdict.cancelled() if cause is None else verdict.forced(cause, self._plan.bounds)
