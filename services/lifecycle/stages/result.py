"""The result: taken as a commit, compared with the base, verified by us, and published."""

import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

import structlog

from services.common.errors import Aborted, ServiceError
from services.lifecycle.failures import JobFailed
from services.lifecycle.model.authors import author
from services.lifecycle.model.floor import check_in_words
from services.lifecycle.model.job_context import Remote
from services.lifecycle.model.job_spec import KeptResult
from services.lifecycle.model.node_work import Base, Layout, ResultCommit
from services.lifecycle.model.outcome import Failure, Nothing
from services.lifecycle.model.output import DiffSummary, ExecutionNote, Verification
from services.lifecycle.model.states import ExecutionState, Purpose
from services.lifecycle.run import KEEPING_SECONDS, JobRun
from services.lifecycle.stages.agent import left_behind
from services.lifecycle.stages.caveats import in_words, recordable
from services.lifecycle.stages.executions import AuxiliaryExecution, exited, last_lines, run_auxiliary
from services.lifecycle.stages.prepare import tree_of
from services.lifecycle.stages.snapshot_bases import current

_SUBJECT_CHARACTERS = 72
_LINE_BYTES = 512
_PUSH_PAUSES = (1, 2, 4, 8, 16, 32, 60, 60, 60, 60)
"""Seconds between the tries of a push: a server that restarts is back within minutes."""

log = structlog.get_logger()


async def take(job: JobRun, layout: Layout, base: Base, remote: Remote | None) -> ResultCommit:
    """Take the workspace as a commit, whatever the agent has done to it; what cannot be taken is in its caveats.

    Raises JobFailed (TAKE_FAILED, RESULT_TOO_LARGE), and JobCancelled when the job is and this takes too long.
    """

    async def work() -> ResultCommit:
        taking = job.nodes.git.take_result(
            layout,
            base,
            job.spec,
            result_id=job.agent_id,
            message=commit_message(job.spec.prompt, job.spec.job_id),
            author=author(job.spec.worker_name),
            remote=remote,
            leave_out=left_behind(job),
        )
        taken = await job.unless_cancelled(taking, grace_seconds=KEEPING_SECONDS)
        return replace(taken, caveats=recordable(job, taken.caveats))

    return await _taken(job, base, work)


async def take_kept(job: JobRun, base: Base, kept: KeptResult) -> ResultCommit:
    """Record a result of an earlier attempt, and what it lacks, as that of this one."""

    async def found() -> ResultCommit:
        return ResultCommit(kept.commit_id, kept.agent_commits, kept.caveats)

    return await _taken(job, base, found)


async def _taken(job: JobRun, base: Base, work: Callable[[], Awaitable[ResultCommit]]) -> ResultCommit:
    def learn(note: ExecutionNote, taken: ResultCommit) -> ExecutionNote:
        caveats = (*base.caveats, *taken.caveats)
        output = replace(note.output, commit_id=taken.commit_id, agent_commits=taken.agent_commits, caveats=caveats)
        return replace(note, output=output)

    return await job.step(job.in_round("take"), ResultCommit, work, learn, lambda taken: in_words(taken.caveats))


async def compare(job: JobRun, base: Base, taken: ResultCommit) -> None:
    """Keep the changed files and the beginning of the diff."""

    async def changes() -> DiffSummary:
        if taken.commit_id == base.commit_id:
            return DiffSummary()
        comparing = job.nodes.git.changes(job.spec.kept_under, base.commit_id, taken.commit_id)
        return _redacted(job, await job.unless_cancelled(comparing, grace_seconds=KEEPING_SECONDS))

    def learn(note: ExecutionNote, found: DiffSummary) -> ExecutionNote:
        return replace(note, output=replace(note.output, changes=found))

    await job.step(current(job, job.in_round("diff")), DiffSummary, changes, learn)


def _redacted(job: JobRun, found: DiffSummary) -> DiffSummary:
    """Return the changes without the job's secrets, which the agent may have written anywhere."""
    clean = job.redactor.bytes
    files = tuple(replace(each, path=clean(each.path), old_path=clean(each.old_path)) for each in found.files)
    return replace(found, files=files, diff=clean(found.diff))


async def verify(job: JobRun, remote: Remote | None, taken: ResultCommit) -> None:
    """Run the policy's check on the taken commit, in a fresh tree. Raises JobFailed (VERIFY_FAILED)."""

    async def check() -> Verification:
        tree = await job.interruptible(tree_of(job, remote, taken.commit_id))
        return await _check(job, tree)

    def learn(note: ExecutionNote, verification: Verification) -> ExecutionNote:
        return replace(note, output=replace(note.output, verification=verification))

    verification = await job.step(job.in_round("verify"), Verification, check, learn)
    if not verification.passed:
        raise JobFailed(Failure("VERIFY_FAILED", verification.message))


async def _check(job: JobRun, tree: Base) -> Verification:
    execution_id, policy = f"{job.agent_id}-verify", job.spec.policy
    seconds = policy.verify_timeout.total_seconds()
    run = await run_auxiliary(
        job, AuxiliaryExecution(execution_id, Purpose.VERIFY, policy.verify_command, seconds, base=tree)
    )
    passed = run.state is ExecutionState.SUCCEEDED
    message = ""
    if not passed:
        said = last_lines(await job.nodes.executions.tail(run, _LINE_BYTES), _LINE_BYTES).rpartition("\n")[2]
        how = f"it exited with code {run.exit_code}" if exited(run) else run.message
        whose = check_in_words(policy.verify_command, job.spec.floors)
        message = f"{whose} did not pass: {how}" + (f"; its last line: {said}" if said else "")
    seconds = (run.end_time - run.start_time).total_seconds() if run.start_time and run.end_time else 0.0
    reason = "" if passed or exited(run) else run.reason
    return Verification(run.execution_id, passed, run.exit_code, reason, seconds, message)


def is_to_publish(job: JobRun, base: Base, taken: ResultCommit) -> bool:
    """True when there is a result, and the policy publishes it: pushes it, if the job has a repository."""
    return job.spec.is_published and taken.commit_id != base.commit_id


async def publish(job: JobRun, remote: Remote, taken: ResultCommit, pushed_before: Collection[str]) -> None:
    """Push the result, again and again while the remote is not reached. Raises JobFailed (PUSH_REJECTED, REF_MOVED, …).

    It is pushed alone: what the agent has done is kept, and need not be done again.
    """

    async def push_once() -> None:
        with job.uninterrupted():  # once begun, it is unknown how far it has come
            try:
                await job.nodes.git.push(remote, taken.commit_id, job.spec.branch)
            except Aborted as moved:  # perhaps by an attempt that was lost before it could record it
                if moved.actual not in pushed_before:
                    raise
                await job.nodes.git.push(remote, taken.commit_id, job.spec.branch, expected=moved.actual)

    async def push() -> Nothing:
        for seconds in _PUSH_PAUSES:
            try:
                await push_once()
                return Nothing()
            except ServiceError as error:
                if error.reason != "REMOTE_UNREACHABLE":
                    raise
                log.warning("a push has not reached its remote", error=error.message, seconds=seconds)
            await job.pause(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        await push_once()
        return Nothing()

    await job.step("push", Nothing, push, lambda note, _: replace(note, output=replace(note.output, pushed=True)))


def commit_message(prompt: str, job_id: str) -> str:
    """Return the message of our commit: the prompt's first line, and which job it was."""
    first = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    printable = "".join(character if character.isprintable() else " " for character in first)
    subject = printable if len(printable) <= _SUBJECT_CHARACTERS else printable[: _SUBJECT_CHARACTERS - 1] + "…"
    return f"{subject or 'Work of an agent'}\n\nBoatyard-Job: {job_id}\n"
