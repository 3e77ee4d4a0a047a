"""From how a program ended, and why we ended it, to what is told about it."""

from dataclasses import dataclass

from services.execution.model import Bounds, Reason, State

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a run."""

    state: State
    reason: Reason | None = None
    message: str = ""


def cancelled() -> Verdict:
    """We ended it, or kept it from beginning, because we were asked to."""
    return Verdict(State.CANCELLED, message="stopped on request")


def forced(cause: Reason, bounds: Bounds) -> Verdict:
    """We ended it because of `cause`."""
    match cause:
        case Reason.TIMED_OUT:
            text = f"it ran longer than {bounds.wall_timeout_s:g} s"
        case Reason.IDLE:
            text = f"it wrote nothing for {bounds.idle_timeout_s:g} s"
        case Reason.OUTPUT_LIMIT:
            text = f"it wrote more than {bounds.max_output_bytes} bytes; what exceeds them is not in the events"
        case _:
            text = "its runner was told to end by a signal that did not come from StopExecution"
    return Verdict(State.FAILED, cause, f"ended by force: {text}")


def ended(status: int) -> Verdict:
    """It ended by itself, with an exit code or a negative signal."""
    if status == 0:
        return Verdict(State.SUCCEEDED)
    if status < 0:
        return Verdict(State.FAILED, Reason.AGENT_FAILED, f"signal {-status} ended the program")
    if status in (_NOT_FOUND, _NOT_EXECUTABLE):
        how = "was not found" if status == _NOT_FOUND else "is not executable"
        return Verdict(
            State.FAILED,
            Reason.AGENT_NOT_INSTALLED,
            f"exit code {status}: the program, or one that it calls, {how} in the sandbox, which has /usr, the"
            " interpreter that runs Boatyard, and the read-only paths of the request and of the settings."
            " Install it there, or add its directory to BOATYARD_EXECUTION_READ_ONLY_PATHS",
        )
    return Verdict(State.FAILED, Reason.AGENT_FAILED, f"the program ended with exit code {status}")


def never_began(complaint: str) -> Verdict:
    """The sandbox could not be made."""
    return Verdict(State.FAILED, Reason.SANDBOX_FAILED, complaint or "the sandbox ended before the program began")
