"""The verdict on a run, from how its program ended and why we ended it."""

import re
import time
from dataclasses import dataclass

from services.common.room import tells_of_no_room
from services.execution.model import Bounds, Reason, Result, State

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
# What shells say last that are called as we call ours: dash, bash (`line 1:`, `command`) and busybox.
_REFUSED = re.compile(
    rb"(?:^|\n)(?:/bin/)?sh: (?:(?:line )?\d+: )?(?:exec: )?([^\n]+): "
    rb"(?:(?:command )?not found|Permission denied|No such file or directory|cannot execute[^\n]*|Exec format error)$"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended."""

    state: State
    reason: Reason | None = None
    message: str = ""

    def result(
        self,
        start_time_ns: int | None,
        status: int | None = None,
        processes_left: int | None = None,
        output_bytes: int = 0,
    ) -> Result:
        """Return the result, ended now, without its last sequence.

        `status` is an exit code, a negative signal, or None when no program ran.
        """
        return Result(
            state=self.state,
            reason=self.reason or "",
            message=self.message,
            exit_code=status if status is not None and status >= 0 else None,
            signal=-status if status is not None and status < 0 else None,
            processes_left=processes_left,
            start_time_ns=start_time_ns,
            end_time_ns=time.time_ns(),
            last_sequence=0,
            output_bytes=output_bytes,
        )


def cancelled() -> Verdict:
    """Return the verdict on a run that we ended, or did not start, because we were asked to."""
    return Verdict(State.CANCELLED, message="stopped on request")


def forced(cause: Reason, bounds: Bounds) -> Verdict:
    """Return the verdict on a run that we, or the kernel for us, ended because of `cause`."""
    if cause is Reason.RUNNER_LOST:
        text = "its runner was told to end by a signal that did not come from StopExecution"
    elif cause in (Reason.MODEL_FAILED, Reason.MODEL_UNAVAILABLE, Reason.BUDGET_EXCEEDED, Reason.REPLAY_MISMATCH):
        text = "it cannot go on without its model"
    else:
        text = _limit(cause, bounds)
    return Verdict(State.FAILED, cause, f"ended by force: {text}")


def failed_at(limit: Reason, bounds: Bounds, status: int) -> Verdict:
    """Return the verdict on a program that failed by itself, with an exit code or signal, after reaching a limit."""
    how = f"signal {-status} ended the program" if status < 0 else f"the program ended with exit code {status}"
    return Verdict(State.FAILED, limit, f"{how}: {_limit(limit, bounds)}")


def _limit(reason: Reason, bounds: Bounds) -> str:
    """Say what was too much, with the limit's name in the contract and its value."""
    return {
        Reason.TIMED_OUT: f"it ran longer than {bounds.wall_timeout_s:g} s (timeout)",
        Reason.IDLE: f"it wrote nothing for {bounds.idle_timeout_s or 0:g} s (idle_timeout)",
        Reason.MEMORY_LIMIT: f"its processes needed more memory than {bounds.memory_bytes} bytes (memory_bytes)",
        Reason.PROCESS_LIMIT: f"it wanted more processes and threads at once than {bounds.processes} (processes)",
        Reason.CPU_LIMIT: f"its processes used more than {bounds.cpu_seconds} s on processors (cpu_seconds)",
        Reason.DISK_LIMIT: f"its workspace{'' if bounds.home is None else ' with its HOME'} grew by more than"
        f" {bounds.workspace_bytes} bytes (disk_bytes); each file counts as 1 KiB at least",
        Reason.SCRATCH_LIMIT: f"its /tmp, {'HOME ' if bounds.home is None else ''}or /dev/shm was full, which have"
        f" {bounds.scratch_bytes} bytes each (scratch_bytes)",
        Reason.OUTPUT_LIMIT: f"it wrote more than {bounds.max_output_bytes} bytes (output_bytes); what exceeds them is"
        " not in the events",
    }[reason]


def ended(status: int, last_words: bytes = b"") -> Verdict:
    """Return the verdict on a program that ended by itself, with an exit code or a negative signal.

    `last_words` is the end of what was written beside its results: by it, a program that our shell did not find is told
    from one that itself ends with the exit code that shells have for that.
    """
    if status == 0:
        return Verdict(State.SUCCEEDED)
    if status < 0:
        return Verdict(State.FAILED, Reason.AGENT_FAILED, f"signal {-status} ended the program")
    if status in (_NOT_FOUND, _NOT_EXECUTABLE) and (refused := _REFUSED.search(last_words.strip())):
        how = "was not found" if status == _NOT_FOUND else "is not executable"
        program = refused[1].decode(errors="replace")
        return Verdict(
            State.FAILED, Reason.AGENT_NOT_INSTALLED, f"exit code {status}: {program} {how} in the {_place_of(program)}"
        )
    return Verdict(State.FAILED, Reason.AGENT_FAILED, f"the program ended with exit code {status}")


def _place_of(program: str) -> str:
    """Say where a program was looked for, and how it gets there: a relative path leads into the working tree.

    Shells say the same of a script that is there, if the program that its first line names is not.
    """
    if "/" in program and not program.startswith("/"):
        return (
            "working tree, or the program that its first line names is not in the sandbox. Commit it with the right to"
            " be executed, or take along what is not committed by `boatyard run --include-dirty`"
        )
    return (
        "sandbox, which has /usr, the interpreter that runs Boatyard, and the read-only paths of the request and of"
        " the settings. Install it there, or add its directory to BOATYARD_EXECUTION_READ_ONLY_PATHS"
    )


def never_began(complaint: str) -> Verdict:
    """Return the verdict on a run whose sandbox could not be made, by what was said of that."""
    if tells_of_no_room(complaint):
        return Verdict(State.FAILED, Reason.DISK_FULL, f"its program never began, as a disk is full: {complaint}")
    return Verdict(State.FAILED, Reason.SANDBOX_FAILED, complaint or "the sandbox ended before the program began")
