"""Calls the hooks of a job, each once and recorded before the next: commands in a sandbox, and servers."""

from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial

import structlog

from services.common.room import DISK_FULL
from services.lifecycle.failures import JobCancelled, JobFailed
from services.lifecycle.ledger import Document
from services.lifecycle.model.checkpoint import Origin
from services.lifecycle.model.hook_answers import MAX_LABELS
from services.lifecycle.model.hook_calls import CallState, HookCall
from services.lifecycle.model.job_context import Hook, HookResult, Hooks, plain_stage
from services.lifecycle.model.node_work import Base, EndedRun, Layout
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.output import Verification
from services.lifecycle.model.states import ExecutionState, HookEvent, JobState, Purpose
from services.lifecycle.model.value import Recorded
from services.lifecycle.run import JobRun
from services.lifecycle.stages.agent import is_agent_gone, takes_addition
from services.lifecycle.stages.checkpoints import ask
from services.lifecycle.stages.executions import AuxiliaryExecution, run_auxiliary
from services.lifecycle.stages.hook_calls import (
    MAX_OUTPUT_BYTES,
    HookFailed,
    Reply,
    ServerCall,
    call_server,
    environment_of,
    reply_of_command,
)

_VETOED = "VETOED"
_WITHOUT_A_WAIT = {"take", "diff"}

log = structlog.get_logger()


def choose_hooks(job: JobRun, in_force: tuple[Hook, ...]) -> None:
    """Fix the hooks that this job calls: those that are in force now. Raises JobCancelled."""
    job.settle("hooks", Hooks(in_force))


async def call_pre_hooks(job: JobRun) -> None:
    """Call the hooks before the job, in order. Raises JobFailed (VETOED, HOOK_FAILED, …)."""
    await _call_all(job, HookEvent.PRE, None)


async def call_hooks_before(job: JobRun, stage: str) -> None:
    """Call the hooks before a stage, in order. Raises JobFailed (VETOED, HOOK_FAILED, …)."""
    await _call_all(job, HookEvent.BEFORE, None, stage)


async def call_hooks_after(job: JobRun, stage: str, result: Recorded) -> None:
    """Call the hooks after a stage that is done, in order. Raises JobFailed (HOOK_FAILED, …).

    Their failure does not count when the stage's own result makes the job fail: that reason says more. After the push
    it is too late for a cancellation.
    """
    with suppress(JobCancelled) if plain_stage(stage) == "push" else nullcontext():
        try:
            await _call_all(job, HookEvent.AFTER, None, stage)
        except JobFailed:
            if _went_well(result):
                raise


async def call_post_hooks(job: JobRun) -> None:
    """Call the hooks that get the result, in order. Raises JobFailed (HOOK_FAILED, …)."""
    await _call_all(job, HookEvent.POST, Outcome(JobState.SUCCEEDED))


async def call_error_hooks(job: JobRun, outcome: Outcome) -> None:
    """Call the hooks that get the error, or the cancellation, in order.

    The outcome is recorded first, so that it cannot change.
    """
    if not _chosen(job, HookEvent.ERROR, outcome=outcome):
        return
    job.settle("error", outcome, outcome.failure.reason if outcome.failure else outcome.state)
    await _call_all(job, HookEvent.ERROR, outcome)


def failed_before(job: JobRun) -> Outcome | None:
    """Return the recorded outcome of a job whose driver was restarted while it called error hooks."""
    return job.recorded("error", Outcome)


def _went_well(result: Recorded) -> bool:
    match result:
        case EndedRun():
            return result.run.state is ExecutionState.SUCCEEDED
        case Verification():
            return result.passed
        case _:
            return True


def _chosen(job: JobRun, event: HookEvent, stage: str = "", *, outcome: Outcome | None = None) -> dict[str, Hook]:
    """Return the hooks to call, by the names of the stages in which they are called."""
    hooks = job.recorded("hooks", Hooks)
    named = {} if hooks is None else hooks.by_stage(event, stage)
    if outcome is None or outcome.state is not JobState.CANCELLED:
        return named
    return {name: hook for name, hook in named.items() if hook.on_cancel}


async def _call_all(job: JobRun, event: HookEvent, outcome: Outcome | None, stage: str = "") -> None:
    for name, hook in _chosen(job, event, stage, outcome=outcome).items():
        try:
            called = await job.step(
                name, HookResult, partial(_call, job, name, hook, outcome), tell=lambda called: called.message
            )
        except JobFailed as failed:
            lacks_room = failed.failure.reason == DISK_FULL and not job.has_agent_begun
            if (
                hook.must_succeed
                or failed.failure.reason == _VETOED
                or (lacks_room and event is not HookEvent.ERROR)  # the hook has not been heard: another machine may
            ):
                raise
            log.warning("a hook failed", hook_id=hook.hook_id, reason=failed.failure.reason)
            continue
        if called.answer.ask:
            await ask(job, name, Origin.HOOK, called.answer.ask)


async def _call(job: JobRun, name: str, hook: Hook, outcome: Outcome | None) -> HookResult:
    document = await job.retry_until_lease_lost(lambda: job.ledger.document(job.lease, name, outcome))
    call = HookCall(f"{job.execution_id}-{name}", hook.hook_id, hook.event, hook.stage)
    await job.retry_until_lease_lost(lambda: job.ledger.record_call(job.lease, call))
    try:
        reply = await (_serve if hook.url else _run)(job, call, hook, document)
        _check(job, hook, reply)
    except HookFailed as failed:
        gone = replace(call, state=CallState.FAILED, tries=failed.tries, status=str(failed))
        await job.retry_until_lease_lost(lambda: job.ledger.record_call(job.lease, gone))
        raise JobFailed(Failure("HOOK_FAILED", f"hook {hook.hook_id}: {failed}")) from failed
    vetoed, labels = reply.answer.veto, reply.answer.labels
    state = CallState.DONE if vetoed is None else CallState.VETOED
    answer = reply.text or (vetoed.reason if vetoed else "")
    done = replace(call, state=state, tries=reply.tries, status=reply.how, answer=answer, labels=labels)
    await job.retry_until_lease_lost(lambda: job.ledger.record_call(job.lease, done))
    if vetoed is not None:
        raise JobFailed(Failure(_VETOED, vetoed.reason or f"hook {hook.hook_id} {reply}"))
    job.spec = replace(job.spec, labels={**job.spec.labels, **labels})
    return HookResult(f"{hook.hook_id}: {reply}", reply.answer)


async def _run(job: JobRun, call: HookCall, hook: Hook, document: Document) -> Reply:
    """Run a command, in the job's workspace if that exists and no agent is in it. Raises HookFailed."""
    layout = job.recorded("workspace", Layout) if is_agent_gone(job) and not job.lease.is_moved else None
    auxiliary = AuxiliaryExecution(
        call.call_id,
        Purpose.HOOK,
        hook.command,
        hook.timeout,
        base=None if layout is None else job.recorded("base", Base),
        layout=layout,
        prompt=document.data,
        environment=environment_of(hook),
    )
    run = await run_auxiliary(job, auxiliary)
    return reply_of_command(hook, run, await job.nodes.executions.tail(run, MAX_OUTPUT_BYTES))


async def _serve(job: JobRun, call: HookCall, hook: Hook, document: Document) -> Reply:
    """Call a server. Raises HookFailed."""
    key = await job.retry_until_lease_lost(lambda: job.ledger.signing_key(job.lease, hook.hook_id))
    server_call = ServerCall(hook, call.call_id, key, document.data, document.time)
    return await job.interruptible(call_server(job.webhooks, server_call))


def _check(job: JobRun, hook: Hook, reply: Reply) -> None:
    """Raise HookFailed when a hook adds too much, or asks a person before a stage where no job can wait."""
    answer = reply.answer
    if answer.ask and hook.stage in _WITHOUT_A_WAIT:
        raise HookFailed(f"it asks a person before {hook.stage}, where no job waits: before push one does", reply.tries)
    if answer.prompt_addition and not takes_addition(job, answer.prompt_addition):
        raise HookFailed("its addition would make the prompt longer than what the agent takes", reply.tries)
    if len({**job.spec.labels, **answer.labels}) > MAX_LABELS:
        raise HookFailed(f"its labels would be more than {MAX_LABELS} with those of the job", reply.tries)
