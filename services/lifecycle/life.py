"""The life of a job, in order. The process may die at any line; whoever takes the job starts again at the top."""

from collections.abc import Awaitable
from contextlib import suppress

import structlog

from services.lifecycle.failures import INTERNAL, JobCancelled, JobFailed, Parked
from services.lifecycle.ledger import LeaseLost
from services.lifecycle.model.job_context import JobContext
from services.lifecycle.model.job_spec import KeptResult
from services.lifecycle.model.node_work import Base, Layout, ResultCommit, Run
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from services.lifecycle.retries import is_to_retry, retry_after, unless_refused, with_attempt_number
from services.lifecycle.run import JobRun
from services.lifecycle.stages.agent import follow_agent, is_agent_gone, judge_agent, start_agent, stop_agent
from services.lifecycle.stages.artifacts import take_artifacts
from services.lifecycle.stages.caveats import check_complete
from services.lifecycle.stages.checkpoints import answer_agent, approval, first_task
from services.lifecycle.stages.cleanup import clean_up, keep_state
from services.lifecycle.stages.hooks import (
    call_error_hooks,
    call_hooks_after,
    call_hooks_before,
    call_post_hooks,
    call_pre_hooks,
    choose_hooks,
    failed_before,
)
from services.lifecycle.stages.prepare import make_branch, make_workspace, prepare_base
from services.lifecycle.stages.protection import protected_changes
from services.lifecycle.stages.result import compare, is_to_publish, publish, take, take_kept, verify

log = structlog.get_logger()


async def run_job(job: JobRun) -> Outcome | None:
    """Run a job from wherever it is to its end, and record how it ended; return None when it will be retried.

    Raises LeaseLost when the job is no longer ours, and Parked when it waits for a person.
    """
    context = await job.load()
    outcome = unless_refused(job, failed_before(job) or with_attempt_number(job, await _outcome(job, context)))
    again = is_to_retry(job, outcome)
    with job.uninterrupted():
        await _best_effort(_end_agent(job))
        await _best_effort(_keep_state(job, outcome))
    if outcome.failure is not None and not again:
        await _best_effort(_tell_of_failure(job, context, outcome))
    if outcome.state is JobState.CANCELLED:
        with job.told_of_cancel():
            await _best_effort(_tell_of_failure(job, context, outcome))
    with job.uninterrupted():
        await _best_effort(_clean_up(job, outcome))
        if outcome.failure is not None and again:
            await job.retry(retry_after(job, outcome.failure))
            return None
        await job.finish(outcome)
    return outcome


async def _outcome(job: JobRun, context: JobContext) -> Outcome:
    try:
        await _work(job, context)
    except JobCancelled:
        return Outcome(JobState.CANCELLED)
    except JobFailed as failed:
        return Outcome(JobState.FAILED, failed.failure)
    except (LeaseLost, Parked):
        raise
    except Exception:
        log.exception("a job broke")
        return Outcome(JobState.FAILED, INTERNAL)
    return Outcome(JobState.SUCCEEDED)


async def _work(job: JobRun, context: JobContext) -> None:
    remote = context.remote
    choose_hooks(job, context.hooks)
    job.surround(call_hooks_before, call_hooks_after)
    await call_pre_hooks(job)
    if remote is not None or not job.has_begun("workspace"):  # the version before had no base without a repository
        await approval(job, "base")
    base = await prepare_base(job, remote, context.pushed_before)
    if job.spec.kept is not None:
        await _publish_kept(job, context, base, job.spec.kept)
    else:
        await _rounds(job, context, base)
    await approval(job, "end")
    with suppress(JobCancelled):  # the work is done: too late to cancel
        await call_post_hooks(job)


async def _rounds(job: JobRun, context: JobContext, base: Base) -> None:
    """Have the agent work, once and as often as more is asked for."""
    layout = await make_workspace(job, base, context.files)
    if context.remote is not None:
        await make_branch(job, layout, base)
    await approval(job, "start")
    task = first_task(job)
    while task := await _round(job, context, layout, base, task):
        job.begin_round()


async def _publish_kept(job: JobRun, context: JobContext, base: Base, kept: KeptResult) -> None:
    """Publish a result of an earlier attempt as if it had just been taken; whoever asked for it knows what it lacks."""
    taken = await take_kept(job, base, kept)
    await compare(job, base, taken)
    await _checked_and_published(job, context, base, taken)


async def _round(job: JobRun, context: JobContext, layout: Layout, base: Base, task: str) -> str:
    """Have the agent do a task, and process its result. Return the agent's next task, or an empty string."""
    await start_agent(job, layout, base, task)
    with job.uninterrupted():  # until the result is taken, so that the agent's work is never lost
        run = await follow_agent(job, layout, base, task)
        if job.lacked_room:
            judge_agent(job, run)
        taken = await _collected(job, context, layout, base, run)
    judge_agent(job, run)
    if more := await answer_agent(job, layout, base):
        return more
    check_complete(job)
    return await _checked_and_published(job, context, base, taken)


async def _checked_and_published(job: JobRun, context: JobContext, base: Base, taken: ResultCommit) -> str:
    """Check and publish a result; without a remote, ask whether it may be handed over.

    Return the agent's next task if a person asks for changes, or an empty string.
    """
    remote = context.remote
    if job.spec.policy.verify_command:
        if more := await approval(job, "verify"):
            return more
        await verify(job, remote, taken)
    if is_to_publish(job, base, taken):
        because = "" if remote is None else await protected_changes(job, base, taken)
        if more := await approval(job, "push", because):
            return more
        if remote is not None:
            await publish(job, remote, taken, context.pushed_before)
    return ""


async def _collected(job: JobRun, context: JobContext, layout: Layout, base: Base, run: Run) -> ResultCommit:
    """Take the agent's work, however the agent ended."""
    try:
        taken = await take(job, layout, base, context.remote)
        await compare(job, base, taken)
        await take_artifacts(job)  # last: where they cannot be kept, the result is there all the same
    except JobFailed:
        judge_agent(job, run)  # the agent's own failure says more than that of taking its result
        raise
    return taken


async def _end_agent(job: JobRun) -> None:
    if not is_agent_gone(job) and not job.lease.is_moved:
        await stop_agent(job)


async def _keep_state(job: JobRun, outcome: Outcome) -> None:
    """Keep a snapshot before error hooks, which may change the workspace, and before the workspace is released."""
    if outcome.state is not JobState.SUCCEEDED and is_agent_gone(job) and not job.lease.is_moved:
        await _best_effort(take_artifacts(job))
        await keep_state(job)


async def _tell_of_failure(job: JobRun, context: JobContext, outcome: Outcome) -> None:
    choose_hooks(job, context.hooks)  # when the job failed before they were chosen
    await call_error_hooks(job, outcome)


async def _clean_up(job: JobRun, outcome: Outcome) -> None:
    if job.has_begun("workspace") and is_agent_gone(job) and not job.lease.is_moved:
        await clean_up(job, outcome.state)


async def _best_effort(work: Awaitable[None]) -> None:
    """Do something whose failure or cancellation no longer changes how the job ends."""
    try:
        await work
    except JobFailed as failed:
        log.warning("not done", reason=failed.failure.reason, error=failed.failure.message)
    except JobCancelled:
        log.info("cut short")
