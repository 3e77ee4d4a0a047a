"""What the end of an agent by a preset means: exit code 0 alone is no success."""

from dataclasses import replace
from typing import Final, Protocol

from services.execution.engines.command.lines import JsonLines
from services.execution.engines.command.preset import PresetTask
from services.execution.engines.command.readers.events import AgentEvents, Problem
from services.execution.engines.command.readers.text import PlainText
from services.execution.eventlog import EventWriter, Stream
from services.execution.model import Reason, State
from services.execution.processes.verdict import Verdict

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


def judged(verdict: Verdict, status: int | None, task: PresetTask, problem: Problem | None) -> Verdict:
    """Return the verdict on an agent that has ended by itself, with what it says of its end.

    `verdict` is that on its program alone, and `status` its exit code, or a negative signal.
    """
    if verdict.reason is Reason.AGENT_NOT_INSTALLED:
        return replace(verdict, message=f"{verdict.message}. To install {task.title}: {task.install}")
    if verdict.state is not State.SUCCEEDED and verdict.reason is not Reason.AGENT_FAILED:
        return verdict
    known = task.exit_codes.get(str(status))
    if verdict.state is State.SUCCEEDED and problem is None and known is None:
        return verdict
    reason = Reason(known) if known is not None else Reason.AGENT_FAILED if problem is None else problem.reason
    how = verdict.message or f"the program ended with exit code {status}"
    return Verdict(State.FAILED, reason, how if problem is None else f"{how}: {problem.text}")
