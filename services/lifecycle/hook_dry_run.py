"""A dry run of a hook: it is called once as a job would call it; nothing is recorded, and no job changes."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from services.common.errors import ServiceError
from services.common.fence import Fence
from services.common.ids import new_id
from services.lifecycle.model.hook_answers import HookAnswer
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.ids import workspace_of
from services.lifecycle.model.job_context import Hook
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import Launch
from services.lifecycle.model.states import Purpose
from services.lifecycle.nodes import JobNodes, Nodes
from services.lifecycle.stages.executions import settings_of_line
from services.lifecycle.stages.hook_calls import (
    MAX_OUTPUT_BYTES,
    HookFailed,
    Reply,
    ServerCall,
    call_server,
    environment_of,
    reply_of_command,
)
from services.lifecycle.webhooks import Webhooks

_JOB_ID: Final = "dry-run"
"""The job id that node services are given. No job has it."""
_LEFT_SECONDS: Final = 3600.0
"""When the workspace of a gateway that was killed in the middle is removed: later than any hook may take."""


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """The outcome (DONE, VETOED or FAILED) and the answer that a job would have received, after `seconds`."""

    call_id: str
    state: CallState
    status: str
    text: str = ""
    answer: HookAnswer = field(default_factory=HookAnswer)
    seconds: float = 0.0


class HookDryRun:
    """Calls hooks for a dry run: servers from here, commands in an empty workspace of this cell."""

    def __init__(self, nodes: Nodes, webhooks: Webhooks) -> None:
        self._nodes = nodes
        self._webhooks = webhooks

    async def call(self, hook: Hook, key: bytes, document: bytes) -> DryRunResult:
        """Call a hook with a job's document, without retries."""
        call_id = new_id("dryrun")
        began = time.monotonic()
        try:
            if hook.url:
                reply = await call_server(
                    self._webhooks, ServerCall(hook, call_id, key, document, datetime.now(UTC), tries=1)
                )
            else:
                reply = await self._run(call_id, hook, document)
        except HookFailed as failed:
            return DryRunResult(call_id, CallState.FAILED, str(failed), seconds=time.monotonic() - began)
        state = CallState.DONE if reply.answer.veto is None else CallState.VETOED
        return DryRunResult(call_id, state, reply.how, reply.text, reply.answer, time.monotonic() - began)

    async def _run(self, call_id: str, hook: Hook, document: bytes) -> Reply:
        nodes = self._nodes.for_job(Fence(_JOB_ID, 1), asyncio.sleep)
        try:
            return await _ran(nodes, call_id, hook, document)
        except ServiceError as error:
            raise HookFailed(f"could not be run here: {error.message}") from error


async def _ran(nodes: JobNodes, call_id: str, hook: Hook, document: bytes) -> Reply:
    workspace_id = workspace_of(call_id)
    spec = JobSpec(_JOB_ID, "", "", "", "", datetime.now(UTC))
    layout = await nodes.workspaces.create(workspace_id, None, spec)
    try:
        await nodes.workspaces.close(workspace_id, failed=False, keep_seconds=_LEFT_SECONDS)
        launch = Launch(
            purpose=Purpose.HOOK,
            layout=layout,
            agent=settings_of_line(hook.command, hook.timeout, spec.agent),
            prompt=document,
            environment=environment_of(hook),
        )
        await nodes.executions.start(call_id, launch)
        run = await nodes.executions.wait(call_id)
        return reply_of_command(hook, run, await nodes.executions.tail(run, MAX_OUTPUT_BYTES))
    finally:  # also when the caller has disconnected
        await nodes.executions.stop(call_id)
        if await nodes.executions.find(call_id) is not None:
            await nodes.executions.wait(call_id)
        await nodes.workspaces.delete(workspace_id)
