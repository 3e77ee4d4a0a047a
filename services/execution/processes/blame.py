"""What a run's end means whose model does not answer."""

import time
from dataclasses import replace
from typing import Final

from services.execution.door.outages import Trouble
from services.execution.model import Reason, Result, State
from services.execution.processes.verdict import Verdict

_MAY_BE_BLAMED: Final = (None, Reason.AGENT_FAILED, Reason.IDLE, Reason.MODEL_FAILED, Reason.MODEL_UNAVAILABLE)


def reason_of(trouble: Trouble) -> Reason:
    """Return the reason of a run that ends by this."""
    if trouble.reason in (Reason.BUDGET_EXCEEDED, Reason.REPLAY_MISMATCH):
        return Reason(trouble.reason)
    return Reason.MODEL_FAILED if trouble.is_refusal else Reason.MODEL_UNAVAILABLE


def blamed(verdict: Verdict, trouble: Trouble | None) -> Verdict:
    """Return the verdict on a run that has failed while its model did not answer: that is why."""
    if trouble is None:
        return verdict
    if trouble.reason and verdict.state is State.SUCCEEDED:  # as a script that looks at no answer
        return Verdict(State.FAILED, reason_of(trouble), trouble.text)
    if verdict.state is not State.FAILED or verdict.reason not in (*_MAY_BE_BLAMED, reason_of(trouble)):
        return verdict
    is_told = trouble.text in verdict.message
    return Verdict(
        State.FAILED, reason_of(trouble), verdict.message if is_told else f"{verdict.message}: {trouble.text}"
    )


def with_outage(result: Result, trouble: Trouble | None) -> Result:
    """Return a result with the outage that has ended the run, if one has."""
    if result.reason != Reason.MODEL_UNAVAILABLE:
        return result
    if trouble is None:
        return replace(result, outage_provider="")
    until_ns = None if trouble.pause_s is None else time.time_ns() + round(trouble.pause_s * 1e9)
    return replace(result, outage_provider=trouble.provider, outage_until_ns=until_ns)
