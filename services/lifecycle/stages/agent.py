"""The agent: started in one step and followed in another, so that after a crash it is found running."""

import re
from contextlib import nullcontext
from dataclasses import replace

from services.agent.settings import AgentSettings
from services.lifecycle.failures import JobCancelled, JobFailed
from services.lifecycle.model.authors import EMAIL, author
from services.lifecycle.model.hook_answers import MAX_ADDITIONS_BYTES
from services.lifecycle.model.ids import agent_of, step_in
from services.lifecycle.model.job_context import HookResult
from services.lifecycle.model.job_spec import ASK_FILE, INPUT_DATA, MAX_ARGUMENT_BYTES, MAX_PROMPT_BYTES
from services.lifecycle.model.node_work import Base, EndedRun, Launch, Layout, Run
from services.lifecycle.model.outcome import Failure, Nothing
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import ExecutionState, Purpose
from services.lifecycle.run import JobRun
from services.lifecycle.stages.asks import answering
from services.lifecycle.stages.executions import begin, end_of, last_lines, noted, stopped
from services.sandbox.spec import Network, Tier

_TAIL_BYTES = 16 << 10
_SUMMARY_BYTES = 2 << 10
_SPARE_BYTES = 1 << 10  # for the paragraph on how to ask a person
_HOOK_STEP = re.compile(r"-hook-\d+$")
_ASKS_NOBODY = "a budget binds the agent, and its execution service is of an earlier version, which asks no budget"
_TOO_LATE = ("push", "post-hook-1")
"""After these steps have begun a cancellation changes nothing: the result may be public."""


async def start_agent(job: JobRun, layout: Layout, base: Base | None, task: str) -> None:
    """Start the agent with its prompt, once per round. Raises JobFailed (SANDBOX_UNAVAILABLE, NODE_VERSION, …)."""

    async def start() -> Run:  # after the hooks before it, whose additions belong to the prompt
        launch = await _whole_launch(job, layout, base, task)
        if launch.reserves_model_use and not await job.nodes.executions.asks_before_use():
            raise JobFailed(Failure("NODE_VERSION", _ASKS_NOBODY))
        return await begin(job, job.agent_id, launch)

    await job.step(job.in_round("start"), Run, start, noted)


async def _whole_launch(job: JobRun, layout: Layout, base: Base | None, task: str) -> Launch:
    launch = _launch(job, layout, base, task)
    if (replay := job.spec.replay) is not None:
        return replace(launch, replay=replay.matching, recording=job.recording)
    reserves = await job.retry_until_lease_lost(lambda: job.books.reserves(job.lease))
    providers = await job.providers()
    return replace(launch, providers=providers, reserves_model_use=reserves, heeds_model_gates=bool(providers))


async def follow_agent(job: JobRun, layout: Layout, base: Base | None, task: str) -> Run:
    """Follow the agent to its end, and stop it when the job is cancelled. The agent's failure is not an error here.

    The rest is what it was started with, and is when its service has lost the keys of its models.
    """
    started = job.recorded(job.in_round("start"), Run)
    reserves = started is not None and started.reserves_model_use
    was_followed = job.has_begun(job.in_round("agent"))  # by a driver before a restart, which may have been everybody's

    async def remind() -> None:
        await job.nodes.executions.remind(job.agent_id, await _whole_launch(job, layout, base, task))

    async def seen(run: Run) -> None:
        """Record what the agent has used so far: of a machine that is lost, it is all that anybody knows."""
        usage, known = run.model_use.usage if run.model_use else (), job.execution.output
        if usage and usage != known.usage:
            job.execution = replace(job.execution, output=replace(known, usage=usage))
            await job.note(job.execution)

    async def follow() -> EndedRun:
        if was_followed:
            await remind()
        async with answering(job, job.agent_id) if reserves or job.asks_models else nullcontext():
            run = await end_of(job, job.agent_id, seen, remind)
        return EndedRun(run, await job.nodes.executions.tail(run, _TAIL_BYTES))

    def learn(note: ExecutionNote, ended: EndedRun) -> ExecutionNote:
        note = noted(note, ended.run)
        output = replace(note.output, summary=last_lines(ended.log_tail, _SUMMARY_BYTES), log_tail=ended.log_tail)
        if (use := ended.run.model_use) is not None:
            output = replace(
                output,
                summary=use.last_words,
                tokens_used=use.tokens_seen,
                cost_usd=use.cost_usd,
                usage=use.usage,
                claimed_tokens=use.claimed_tokens,
                claimed_cost_usd=use.claimed_cost_usd,
                tool_calls=use.tool_calls,
                turns=use.turns,
            )
        return replace(note, output=output)

    return (await job.step(job.in_round("agent"), EndedRun, follow, learn)).run


async def stop_agent(job: JobRun) -> None:
    """Stop the agent of a job that has failed in another step. Raises JobFailed (NODE_LOST)."""

    async def stop() -> Nothing:
        await stopped(job, agent_of(job.execution_id, job.rounds_begun))
        return Nothing()

    await job.step("stop", Nothing, stop)


def is_agent_gone(job: JobRun) -> bool:
    """True when no agent process is left, or none was started, so that the workspace is free."""
    last = step_in("agent", job.rounds_begun)
    return not job.rounds_begun or job.has_ended(last) or job.recorded("stop", Nothing) is not None


def left_behind(job: JobRun) -> tuple[str, ...]:
    """Return what the agent's program leaves in the workspace that is no result, as patterns of a .gitignore file."""
    started = job.recorded(job.in_round("start"), Run)
    return () if started is None else started.leave_out


def judge_agent(job: JobRun, run: Run) -> None:
    """Raise JobCancelled or JobFailed unless the agent succeeded and the job may go on."""
    if not any(map(job.has_begun, _TOO_LATE)):
        job.check_cancelled()
    if run.state is ExecutionState.CANCELLED:  # on the node, by an operator
        raise JobCancelled
    if run.state is not ExecutionState.SUCCEEDED:
        raise JobFailed(Failure(run.reason, run.message))


def fits(job: JobRun, task: str, *more: str) -> bool:
    """True when a task, the additions of hooks and `more` fit into the agent's prompt."""
    as_argument = job.spec.agent.chosen_engine.prompt_is_argument
    return len(_told(job, task, *more).encode()) <= (MAX_ARGUMENT_BYTES if as_argument else MAX_PROMPT_BYTES)


def takes_addition(job: JobRun, addition: str) -> bool:
    """True when a hook may add this to the prompt, with room left for the paragraph on how to ask a person."""
    task = job.spec.task
    added = len(_told(job, "", addition).encode())
    return added <= MAX_ADDITIONS_BYTES and fits(job, task, addition, "x" * _SPARE_BYTES)


def _told(job: JobRun, task: str, *more: str) -> str:
    """Return the agent's prompt: its task, and the additions of hooks so far."""
    called = (job.recorded(name, HookResult) for name in job.stages if _HOOK_STEP.search(name))
    added = [each.answer.prompt_addition.strip() for each in called if each is not None]
    return "\n\n".join(part for part in (task, *added, *more) if part)


def _launch(job: JobRun, layout: Layout, base: Base | None, task: str) -> Launch:
    return Launch(
        purpose=Purpose.AGENT,
        layout=layout,
        agent=replace(_applicable(job.spec.agent), secrets=job.secrets),
        prompt=_told(job, task).encode(),
        read_only_paths=() if base is None else base.read_only_paths,
        environment={name: value.encode() for name, value in _environment(job).items() if value},
        has_home=True,
        resumes=bool(layout.home) and (job.round > 1 or (layout.home_is_kept and bool(job.lease.snapshot_id))),
    )


def _applicable(agent: AgentSettings) -> AgentSettings:
    """Leave out what a node refuses: hosts and an image that another layer's network and tier do not use."""
    return replace(
        agent,
        allowed_hosts=agent.allowed_hosts if agent.network is Network.ALLOW_LIST else (),
        image=agent.image if agent.tier is Tier.CONTAINER else None,
    )


def _environment(job: JobRun) -> dict[str, str]:
    """Return what we tell an agent, by variable; what is empty it is not told."""
    spec = job.spec
    return {
        "BOATYARD_JOB_ID": spec.job_id,
        "BOATYARD_EXECUTION_ID": job.agent_id,
        "BOATYARD_PROJECT_ID": spec.project_id,
        "BOATYARD_WORKER_ID": spec.worker_id,
        "BOATYARD_WORK_ITEM_ID": spec.work_item_id,
        "BOATYARD_INPUT": INPUT_DATA if spec.data else "",
        "BOATYARD_ROUND": str(job.round),
        "BOATYARD_AUTHOR_NAME": author(spec.worker_name),
        "BOATYARD_AUTHOR_EMAIL": EMAIL,
        "BOATYARD_ASK_FILE": ASK_FILE if spec.policy.agent_may_ask else "",
    }
