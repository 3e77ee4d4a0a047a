"""Hooks before a job: any of them may veto it."""

from functools import partial

from services.lifecycle.failures import JobFailed
from services.lifecycle.model import ExecutionState, Failure, Hook, Hooks, Nothing, Purpose, Surroundings
from services.lifecycle.run import JobRun
from services.lifecycle.stages.executions import Errand, exited, last_lines, run_errand

_MAX_LINE_BYTES = 1024


async def call_hooks(job: JobRun, surroundings: Surroundings) -> None:
    """Call the hooks that are registered now, in order, each once. Raises JobFailed (VETOED, HOOK_FAILED)."""

    async def fixed() -> Hooks:
        return Hooks(surroundings.hooks)

    chosen = await job.step("hooks", Hooks, fixed)
    for number, hook in enumerate(chosen.hooks, start=1):
        await job.step(f"hook-{number}", Nothing, partial(_call, job, number, hook, surroundings.document))


async def _call(job: JobRun, number: int, hook: Hook, document: bytes) -> Nothing:
    execution_id = f"{job.execution_id}-hook-{number}"
    run = await run_errand(job, Errand(execution_id, Purpose.HOOK, hook.command, hook.timeout, prompt=document))
    if run.state is ExecutionState.SUCCEEDED:
        return Nothing()
    if not exited(run):
        raise JobFailed(Failure("HOOK_FAILED", f"hook {hook.hook_id} ended with {run.reason}: {run.message}"))
    said = last_lines(await job.nodes.tail(run, _MAX_LINE_BYTES), _MAX_LINE_BYTES).rpartition("\n")[2]
    raise JobFailed(Failure("VETOED", said or f"hook {hook.hook_id} exited with code {run.exit_code}"))
