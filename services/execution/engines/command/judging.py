"""What the end of an agent by a preset means: exit code 0 alone is no success."""

from dataclasses import replace
from typing import Final, Protocol

from services.execution.engine import RunContext
from services.execution.engines.command.acp.conversation import Conversation
from services.execution.engines.command.acp.task import ConversationTask
from services.execution.engines.command.lines import JsonLines
from services.execution.engines.command.preset import PresetTask
from services.execution.engines.command.readers.events import AgentEvents, Problem
from services.execution.engines.command.readers.text import PlainText
from services.execution.eventlog import EventWriter, Stream
from services.execution.inbox.messages import Inbox
from services.execution.model import SESSION_VARIABLE, Reason, State
from services.execution.processes.verdict import Verdict
from services.sandbox.launch import bare_cwd
from services.sandbox.spec import Tier

_TEXT: Final = "text"


class Transcript(Protocol):
    """What passes on the output of an agent, and knows what the agent says of its work."""

    events: AgentEvents

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Record a piece of output."""
        ...

    def end(self) -> None:
        """Say that no output follows."""
        ...

    def problem(self) -> Problem | None:
        """Return why the work is not done; None when it is."""
        ...


def transcript(task: PresetTask, writer: EventWriter) -> Transcript:
    """Return what reads the output of a preset's agent."""
    return PlainText(writer, task.done, task.failed) if task.reader == _TEXT else JsonLines(writer, task.reader)


def conversation(context: RunContext, task: PresetTask) -> Conversation | None:
    """Return the conversation that is held with a preset's agent; None for one that only reads its prompt."""
    if task.conversation is None:
        return None
    spec = context.plan.sandbox
    return Conversation(
        ConversationTask.of(task.conversation),
        context.writer,
        Inbox(context.run.path),
        context.run.stdin.read_text() if context.run.stdin.exists() else "",
        cwd=str(bare_cwd(spec) if spec.tier is Tier.NONE else spec.cwd),
        session_id=spec.environment.get(SESSION_VARIABLE, b"").decode(),
    )


def concluded(problem: Problem | None) -> Verdict:
    """Return the verdict on an agent that has said how its work ended, whatever its program did after that."""
    if problem is None:
        return Verdict(State.SUCCEEDED)
    return Verdict(State.FAILED, problem.reason, f"the agent's work is not done: {problem.text}")


def judged(verdict: Verdict, status: int | None, task: PresetTask, problem: Problem | None) -> Verdict:
    """Return the verdict on an agent that has ended by itself, with what it says of its end.

    `verdict` is that on its program alone, and `status` its exit code, or a negative signal.
    """
    if verdict.reason is Reason.AGENT_NOT_INSTALLED:
        how = f". To install {task.title}: {task.install}" if task.install else ""
        return replace(verdict, message=verdict.message + how)
    if verdict.state is not State.SUCCEEDED and verdict.reason is not Reason.AGENT_FAILED:
        return verdict
    known = task.exit_codes.get(str(status))
    if verdict.state is State.SUCCEEDED and problem is None and known is None:
        return verdict
    reason = Reason(known) if known is not None else Reason.AGENT_FAILED if problem is None else problem.reason
    how = verdict.message or f"the program ended with exit code {status}"
    return Verdict(State.FAILED, reason, how if problem is None else f"{how}: {problem.text}")
