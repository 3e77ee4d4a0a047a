"""Hooks in a job's life, each called once, and recorded before the next: commands in a sandbox, and webhooks."""

import json
import re
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import partial

import structlog

from services.lifecycle.failures import JobCancelled, JobFailed
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.output import Verification
from services.lifecycle.model.states import ExecutionState, HookEvent, JobState, Purpose
from services.lifecycle.model.surroundings import Called, Hook, Hooks
from services.lifecycle.model.value import Recorded
from services.lifecycle.model.work import Base, Ended, Layout
from services.lifecycle.run import JobRun
from services.lifecycle.stages.agent import is_agent_gone
from services.lifecycle.stages.executions import Errand, exited, last_lines, run_errand
from services.lifecycle.webhooks import Answer, Call, CallFailed

_MAX_LINE_BYTES = 512
_VETOED = "VETOED"
_ROUND = re.compile(r"-\d+$")

log = structlog.get_logger()


async def choose_hooks(job: JobRun, registered: tuple[Hook, ...]) -> None:
    """Fix what this job calls: the hooks that are registered now."""

    async def fixed() -> Hooks:
        return Hooks(registered)

    await job.step("hooks", Hooks, fixed)


async def call_pre_hooks(job: JobRun) -> None:
    """Call the hooks before the job, in order. Raises JobFailed (VETOED, HOOK_FAILED, …)."""
    await _call_all(job, HookEvent.PRE, None)


async def call_hooks_before(job: JobRun, stage: str) -> None:
    """Call the hooks before a stage, in order. Raises JobFailed (VETOED, HOOK_FAILED, …)."""
    await _call_all(job, HookEvent.BEFORE, None, stage)


async def call_hooks_after(job: JobRun, stage: str, result: Recorded) -> None:
    """Call the hooks after a stage that is done, in order. Raises JobFailed (HOOK_FAILED, …).

    Not where the stage found that the job is to fail: why it does says more. Nor does a cancel after the push change
    anything: it is too late.
    """
    with suppress(JobCancelled) if stage == "push" else nullcontext():
        try:
            await _call_all(job, HookEvent.AFTER, None, stage)
        except JobFailed:
            if _went_well(result):
                raise


async def call_post_hooks(job: JobRun) -> None:
    """Call the hooks that get the result, in order. Raises JobFailed (HOOK_FAILED, …)."""
    await _call_all(job, HookEvent.POST, Outcome(JobState.SUCCEEDED))


async def call_error_hooks(job: JobRun, outcome: Outcome) -> None:
    """Call the hooks that get the error, in order. What ended the job is recorded first, so that it stays that."""
    if not _chosen(job, HookEvent.ERROR):
        return

    async def fixed() -> Outcome:
        return outcome

    await job.step("error", Outcome, fixed, tell=lambda known: known.failure.reason if known.failure else "")
    await _call_all(job, HookEvent.ERROR, outcome)


def failed_before(job: JobRun) -> Outcome | None:
    """Return how a job has failed whose error hooks were being called when its driver was restarted."""
    return job.recorded("error", Outcome)


def _went_well(result: Recorded) -> bool:
    match result:
        case Ended():
            return result.run.state is ExecutionState.SUCCEEDED
        case Verification():
            return result.passed
        case _:
            return True


def _chosen(job: JobRun, event: HookEvent, stage: str = "") -> list[Hook]:
    """Return the hooks to call; those of a stage come around each of its rounds, such as `take` and `take-2`."""
    chosen = job.recorded("hooks", Hooks)
    named = (event, _ROUND.sub("", stage))
    return [] if chosen is None else [hook for hook in chosen.hooks if (hook.event, hook.stage) == named]


async def _call_all(job: JobRun, event: HookEvent, outcome: Outcome | None, stage: str = "") -> None:
    when = f"{event.lower()}-{stage}" if stage else event.lower()
    for number, hook in enumerate(_chosen(job, event, stage), start=1):
        name = f"{when}-hook-{number}"
        try:
            await job.step(name, Called, partial(_call, job, name, hook, outcome), tell=lambda called: called.message)
        except JobFailed as failed:
            if hook.must_succeed or failed.failure.reason == _VETOED:
                raise
            log.warning("a hook failed", hook_id=hook.hook_id, reason=failed.failure.reason)


async def _call(job: JobRun, name: str, hook: Hook, outcome: Outcome | None) -> Called:
    document = await job.insist(lambda: job.ledger.document(job.lease, outcome))
    said = await (_post if hook.url else _run)(job, name, hook, document)
    return Called(f"{hook.hook_id}: {said}")


async def _run(job: JobRun, name: str, hook: Hook, document: bytes) -> str:
    """Run a command, in the job's workspace when that is made and no agent is in it. Return what it said last."""
    layout = job.recorded("workspace", Layout) if is_agent_gone(job) and not job.lease.is_moved else None
    errand = Errand(
        f"{job.execution_id}-{name}",
        Purpose.HOOK,
        hook.command,
        hook.timeout,
        base=None if layout is None else job.recorded("base", Base),
        layout=layout,
        prompt=document,
        environment={
            "BOATYARD_HOOK_ID": hook.hook_id.encode(),
            "BOATYARD_HOOK_EVENT": hook.event.encode(),
            **({"BOATYARD_HOOK_STAGE": hook.stage.encode()} if hook.stage else {}),
        },
    )
    run = await run_errand(job, errand)
    if run.state is not ExecutionState.SUCCEEDED and not exited(run):
        raise _failed(hook, f"ended with {run.reason}: {run.message}")
    line = last_lines(await job.nodes.tail(run, _MAX_LINE_BYTES), _MAX_LINE_BYTES).rpartition("\n")[2]
    how = f"exited with code {run.exit_code}"
    if run.state is ExecutionState.SUCCEEDED:
        return f"{how}: {line}" if line else how
    if hook.event.may_veto:
        raise JobFailed(Failure(_VETOED, line or f"hook {hook.hook_id} {how}"))
    raise _failed(hook, f"{how}: {line}" if line else how)


async def _post(job: JobRun, name: str, hook: Hook, document: bytes) -> str:
    """Call a server. Return what it answered."""
    key = await job.insist(lambda: job.ledger.signing_key(job.lease, hook.hook_id))
    head = {"type": f"job.{hook.event.lower()}", "timestamp": datetime.now(UTC).isoformat()}
    about = {"hook_id": hook.hook_id, **({"stage": hook.stage} if hook.stage else {})}
    body = b'%b, "data": %b, "job": %b}}' % (json.dumps(head).encode()[:-1], json.dumps(about).encode()[:-1], document)
    call = Call(f"{job.execution_id}-{name}", hook.url, key, body, hook.timeout)
    try:
        answer = await job.interruptible(job.webhooks.call(call))
    except CallFailed as failed:
        raise _failed(hook, str(failed)) from failed
    if hook.event.may_veto:
        _judge(hook, answer)
    said = answer.body[:_MAX_LINE_BYTES].decode(errors="replace").strip().partition("\n")[0]
    how = f"answered {answer.status}" + (f" at try {answer.tries}" if answer.tries > 1 else "")
    return f"{how}: {said}" if said else how


def _judge(hook: Hook, answer: Answer) -> None:
    """Raise JobFailed where the answer is a veto, or where one may be in it that we cannot read."""
    if not answer.is_whole:
        raise _failed(hook, "its answer is compressed, or longer than 64 KiB: a veto in it could not be read")
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):  # words for people: nothing that could be a veto
        return
    allow = said.get("allow", True) if isinstance(said, dict) else True
    if not isinstance(allow, bool):
        raise _failed(hook, 'its answer has an "allow" that is neither true nor false')
    if not allow:
        reason = said.get("reason")
        told = reason.strip()[:_MAX_LINE_BYTES] if isinstance(reason, str) else ""
        raise JobFailed(Failure(_VETOED, told or f"hook {hook.hook_id} does not allow it"))


def _failed(hook: Hook, why: str) -> JobFailed:
    return JobFailed(Failure("HOOK_FAILED", f"hook {hook.hook_id}: {why}"))
