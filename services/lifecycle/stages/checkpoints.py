"""Questions to people: a question without an answer parks the job, which holds nothing while it waits."""

from dataclasses import replace

from services.lifecycle.failures import JobFailed, Parked
from services.lifecycle.model.checkpoint import MAX_WORDS_BYTES, CheckpointState, Decision, Origin, Question
from services.lifecycle.model.job_context import HookResult
from services.lifecycle.model.job_spec import ASK_FILE
from services.lifecycle.model.node_work import Base, Layout
from services.lifecycle.model.outcome import Failure
from services.lifecycle.model.output import Output
from services.lifecycle.model.states import ExecutionState, Purpose
from services.lifecycle.run import JobRun
from services.lifecycle.stages.agent import fits
from services.lifecycle.stages.executions import AuxiliaryExecution, run_auxiliary
from services.lifecycle.stages.snapshot_bases import is_outdated

_MAX_FILES = 100
_ASK_SECONDS = 60.0
_READ_ASKED = f"[ ! -f {ASK_FILE} ] || {{ head -c {MAX_WORDS_BYTES} {ASK_FILE} && rm -f {ASK_FILE}; }}"
_TEXTS = {
    "base": "May the job begin?",
    "start": "May the agent begin?",
    "verify": "May the result be checked?",
    "push": "May the result be pushed?",
    "end": "Is the job done?",
}
_HANDED_OVER = "May the result be handed over?"


async def ask(job: JobRun, name: str, origin: Origin, text: str, *, takes_changes: bool = False) -> Decision:
    """Ask a person, and return the decision: APPROVED, or with `takes_changes` CHANGES_REQUESTED.

    `name` identifies the question in the attempt: at most 30 characters of an id. `text` is cut to 16 KiB.
    Raises Parked while there is no answer, JobFailed (REJECTED, EXPIRED), JobCancelled.
    """

    async def decided() -> Decision:
        decision = await job.retry_until_lease_lost(lambda: job.ledger.decision(job.lease, name))
        if decision is None:
            job.check_cancelled()
            await job.retry_until_lease_lost(
                lambda: job.ledger.park(job.lease, _question(job, name, origin, text, takes_changes))
            )
            raise Parked
        if decision.state is CheckpointState.EXPIRED:
            raise JobFailed(Failure("EXPIRED", f"nobody answered in time: {text}"))
        if decision.state is CheckpointState.REJECTED:
            raise JobFailed(Failure("REJECTED", decision.comment))
        return decision

    return await job.step(f"approval-{name}", Decision, decided, tell=_told)


async def approval(job: JobRun, stage: str, because: str = "") -> str:
    """Ask before a stage if the policy says so, or because of something that whoever is asked is told.

    Return the agent's task for another round; empty when the stage may begin. Raises what `ask` raises.
    """
    has_result = stage in {"verify", "push"}
    # No agent works on a result that is kept.
    takes_changes = has_result and job.spec.kept is None and job.round <= job.spec.policy.max_extra_rounds
    name = job.in_round(stage) if has_result else stage
    if not because and stage not in job.spec.policy.checkpoints.before and not job.has_begun(f"approval-{name}"):
        return ""
    without_remote = not job.spec.repository_id and stage == "push"
    text = _HANDED_OVER if without_remote else f"{_TEXTS[stage]} {because}".rstrip()
    decision = await ask(job, name, Origin.POLICY, text, takes_changes=takes_changes)
    if decision.state is CheckpointState.APPROVED and is_outdated(job, f"approval-{name}"):
        decision = await ask(job, f"{name}-anew", Origin.POLICY, text, takes_changes=takes_changes)
    if decision.state is CheckpointState.APPROVED:
        return ""
    return _told_again(job, f"## Changes that were asked for\n\n{decision.comment}")


async def answer_agent(job: JobRun, layout: Layout, base: Base | None) -> str:
    """Ask a person the agent's question, if it may ask and has; return its task for another round, or an empty string.

    Raises JobFailed (ASK_UNREADABLE; ROUNDS_EXCEEDED when no round is left for the answer), and what `ask` raises.
    """
    if not job.spec.policy.agent_may_ask:
        return ""

    async def read() -> HookResult:
        auxiliary = AuxiliaryExecution(
            f"{job.agent_id}-ask", Purpose.HOOK, _READ_ASKED, _ASK_SECONDS, base=base, layout=layout
        )
        run = await run_auxiliary(job, auxiliary)
        if run.state is not ExecutionState.SUCCEEDED:
            raise JobFailed(Failure("ASK_UNREADABLE", f"what the agent asks in {ASK_FILE} could not be read"))
        return HookResult((await job.nodes.executions.tail(run, MAX_WORDS_BYTES)).decode(errors="replace").strip())

    question = (await job.step(job.in_round("ask"), HookResult, read)).message
    if not question:
        return ""
    bound = job.spec.policy.max_extra_rounds
    if job.round > bound:
        raise JobFailed(Failure("ROUNDS_EXCEEDED", f"the agent asks again after {bound} answers: {question}"))
    decision = await ask(job, job.in_round("agent"), Origin.AGENT, question, takes_changes=True)
    how = "Yes." if decision.state is CheckpointState.APPROVED else "Not yet."
    return _told_again(job, f"## What you asked\n\n{question}\n\n## The answer\n\n{how} {decision.comment}".rstrip())


def first_task(job: JobRun) -> str:
    """Return the agent's task in its first round."""
    if not job.spec.policy.agent_may_ask:
        return job.spec.task
    whole = (
        f"{job.spec.task.rstrip()}\n\n## If you need a person's decision\n\nWrite your question to the file {ASK_FILE}"
        " in the directory that you have begun in, and end. You will be started again there, with the answer.\n"
    )
    return whole if fits(job, whole) else job.spec.task


def _told_again(job: JobRun, words: str) -> str:
    """Return the first task followed by `words`; only `words` when both do not fit."""
    whole = f"{first_task(job).rstrip()}\n\n{words}\n"
    return whole if fits(job, whole) else words + "\n"


def _question(job: JobRun, name: str, origin: Origin, text: str, takes_changes: bool) -> Question:
    return Question(
        name=name,
        origin=origin,
        text=job.redactor.text(text).encode()[:MAX_WORDS_BYTES].decode(errors="ignore"),
        execution_id=job.agent_id,
        seconds=job.spec.policy.checkpoint_timeout.total_seconds(),
        round=job.round,
        takes_changes=takes_changes,
        output=_seen(job.execution.output),
    )


def _seen(output: Output) -> Output:
    """Return the part of an output that a person is shown."""
    changes = replace(output.changes, files=output.changes.files[:_MAX_FILES], diff=b"", diff_truncated=False)
    return replace(output, changes=changes, log_tail=b"")


def _told(decision: Decision) -> str:
    how = "approved" if decision.state is CheckpointState.APPROVED else "changes were asked for"
    by = f" by {decision.name}" if decision.name else ""
    return f"{how}{by}: {decision.comment}" if decision.comment else f"{how}{by}"
