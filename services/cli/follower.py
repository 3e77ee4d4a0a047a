"""Follows a job to its end: shows its stages, and what its agent does, as they happen."""

import asyncio
from contextlib import ExitStack, aclosing

from boatyard.gateway.v1 import job_pb2
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint

from services.cli import humanize, shapes
from services.cli.clients import Gateway
from services.cli.event_view import print_event
from services.cli.job_view import stage_line
from services.cli.resumed_streams import ENDED, Outage, execution_events, job_changes
from services.cli.screen import Screen

_AGENT_STAGE = "agent"
_STAGES_WITH_OUTPUT = {"start", _AGENT_STAGE}
"""Stages in which the agent may write output."""
_IDLE_S = 20.0
"""How long to wait for events of an ended job: longer than the time between two heartbeats."""


class Follower:
    """Shows one job. The agent's output, or JSON, goes to standard output; all else goes to standard error."""

    def __init__(self, gateway: Gateway, screen: Screen, *, as_json: bool) -> None:
        self._gateway = gateway
        self._screen = screen
        self._outage = Outage(screen.say)
        self._as_json = as_json
        self._stages: dict[tuple[int, str], int] = {}
        self._asked: set[str] = set()
        self._viewers: dict[str, asyncio.Task[None]] = {}
        self._batches = 0

    async def to_end(self, job_id: str, *, wait: bool = True) -> job_pb2.Job:
        """Show the job until it has ended, or without `wait` until it asks a person; return its last state."""
        job = job_pb2.Job()
        try:
            with ExitStack() as status:
                async with aclosing(job_changes(self._gateway, job_id, self._outage)) as changes:
                    async for job in changes:
                        status.close()
                        await self._show(job)
                        if job.state == job_pb2.Job.STATE_AWAITING_APPROVAL and not wait:
                            await self._all_seen()
                            break
                        if status_text := _waiting_text(job):
                            status.enter_context(self._screen.waiting(status_text))
        finally:
            for viewer in self._viewers.values():
                viewer.cancel()
            await asyncio.gather(*self._viewers.values(), return_exceptions=True)
        return job

    async def _show(self, job: job_pb2.Job) -> None:
        for execution_id in job.execution_ids:
            if execution_id not in self._viewers:
                before = list(self._viewers.values())
                self._viewers[execution_id] = asyncio.create_task(self._view(execution_id, before))
        for number, record in enumerate(job.timeline):
            is_new = (number, record.name) not in self._stages
            if is_new and number and _is_agents(job.timeline[number - 1]):
                await self._all_seen()  # show all of the agent's output before the stages that follow
            self._show_stage(number, record)
        if job.state in ENDED:
            await self._all_seen()
        for checkpoint in job.checkpoints:
            if checkpoint.state == Checkpoint.STATE_PENDING and checkpoint.checkpoint_id not in self._asked:
                self._show_question(checkpoint)

    def _show_question(self, checkpoint: Checkpoint) -> None:
        self._asked.add(checkpoint.checkpoint_id)
        if self._as_json:
            self._screen.json(shapes.checkpoint(checkpoint))
            return
        job_id, remaining = checkpoint.job_id, humanize.until(checkpoint.expire_time)
        changes = f", `boatyard request-changes {job_id} TEXT`" if checkpoint.takes_changes else ""
        self._screen.say_all(f"? {checkpoint.question}", style="magenta")
        self._screen.say(
            f"  waits for {remaining}: `boatyard approve {job_id}`, `boatyard reject {job_id} --reason TEXT`{changes}",
            style="magenta",
        )

    def _show_stage(self, number: int, record: job_pb2.StageRecord) -> None:
        key = (number, record.name)
        if self._stages.get(key) == record.state:
            return
        self._stages[key] = record.state
        if self._as_json:
            self._screen.json({"kind": "stage", **shapes.stage(record)})
        elif record.state != job_pb2.StageRecord.STATE_RUNNING or _is_agents(record):
            self._screen.line(stage_line(record))

    async def _view(self, execution_id: str, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        async with aclosing(execution_events(self._gateway, execution_id, self._outage)) as batches:
            async for batch in batches:
                self._batches += bool(batch)
                for event in batch:
                    # The job's end shows how the execution ended.
                    if self._as_json or event.WhichOneof("kind") != "state_change":
                        print_event(self._screen, event, as_json=self._as_json)

    async def _all_seen(self) -> None:
        """Wait until all events have been shown."""
        pending = {viewer for viewer in self._viewers.values() if not viewer.done()}
        while pending:
            batches_before = self._batches
            _, pending = await asyncio.wait(pending, timeout=_IDLE_S)
            if pending and self._batches == batches_before:
                return
        for viewer in self._viewers.values():
            viewer.result()


def _is_agents(record: job_pb2.StageRecord) -> bool:
    """True when the agent works in a step: `agent`, and in later rounds `agent-2` and so on."""
    return record.name.partition("-")[0] == _AGENT_STAGE


def _waiting_text(job: job_pb2.Job) -> str | None:
    """Return what to show while nothing else is printed; None while an agent may be writing."""
    if job.state == job_pb2.Job.STATE_PENDING:
        return "waiting for a free slot"
    if job.state == job_pb2.Job.STATE_AWAITING_APPROVAL:
        return "waiting for a person"
    running = [record.name for record in job.timeline if record.state == job_pb2.StageRecord.STATE_RUNNING]
    may_write = any(name.partition("-")[0] in _STAGES_WITH_OUTPUT for name in running)
    return running[-1] if running and not may_write else None
