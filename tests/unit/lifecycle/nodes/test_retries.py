"""Which refusals of a node service are answers, and which are waited out, and for how long."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from services.common.db.outages import outage
from services.common.errors import (
    REQUEST_ID,
    Exhausted,
    FailedPrecondition,
    NotFound,
    RemoteFailure,
    ServiceError,
    Status,
    Unauthenticated,
    Unavailable,
)
from services.common.rpc.bounds import Room, Share, TooManyCallsError
from services.lifecycle.nodes import NodeLost, RetryLimits
from services.lifecycle.nodes.retries import call_with_retries

PATIENCE = RetryLimits(away=5.0, full=60.0, broken=1.0)

LACK_ROOM = (
    Exhausted("DISK_FULL", "git has no room", quota="disk"),
    Exhausted("DISK_FULL", "a file has none", retry_after=10.0, metadata={"resource": "disk"}),
    Exhausted("NODE_BUSY", "too little is free", retry_after=10.0, metadata={"resource": "disk"}),
    Exhausted("NODE_BUSY", "too few inodes are free", retry_after=10.0, metadata={"resource": "inodes"}),
    outage(lacks_room=True),
)
"""What node services without room say, whichever part of them lacks it."""


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Unavailable("DRAINING", "it restarts"), 5.0),
        (FailedPrecondition("WORKSPACE_HELD", "a sandbox that is ending has it", "ws-1"), 5.0),
        (FailedPrecondition("WORKSPACE_NOT_MOUNTED", "its service begins to run again", "ws-1"), 5.0),
        (Exhausted("NODE_BUSY", "no memory left", retry_after=2.0), 60.0),
        (TooManyCallsError(Room.CALLS, Share(1, 1), is_callers=True, is_told=True), 60.0),
        *((error, None) for error in LACK_ROOM),
        (Exhausted("RESOURCE_EXHAUSTED", "memory quota"), 5.0),
        (Exhausted("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (5 vs. 4)"), None),
        (Unauthenticated("another token", reason="CELL_TOKEN_REQUIRED"), 5.0),
        (RemoteFailure(Status.CANCELLED, "CANCELLED", "it stops"), 5.0),
        (RemoteFailure(Status.UNIMPLEMENTED, "UNIMPLEMENTED", "of an earlier version"), 5.0),
        (RemoteFailure(Status.INTERNAL, "INTERNAL", "a fault", {REQUEST_ID: "r-1"}), 1.0),
        (RemoteFailure(Status.UNKNOWN, "UNKNOWN", "Stream removed"), 1.0),
        (FailedPrecondition("STALE_FENCE", "another has it", "job-1"), None),
        (NotFound("workspace", "ws-1"), None),
    ],
)
def test_how_long_a_node_is_asked_again(error: ServiceError, seconds: float | None) -> None:
    assert PATIENCE.for_error(error) == seconds


def test_what_an_agent_has_left_waits_for_room_on_its_machine() -> None:
    assert {PATIENCE.for_error(error, waits_for_room=True) for error in LACK_ROOM} == {60.0}
    assert PATIENCE.for_error(NotFound("workspace", "ws-1"), waits_for_room=True) is None


def failing(*, seconds: Sequence[float]) -> Callable[[], Awaitable[str]]:
    """Return a call that works for a time and then fails, for each of `seconds`; the next one succeeds."""
    left = list(seconds)

    async def call() -> str:
        if not left:
            return "done"
        await asyncio.sleep(left.pop(0))
        raise RemoteFailure(Status.CANCELLED, "CANCELLED", "its service is replaced")

    return call


async def no_pause(_: float) -> None: ...


async def test_what_a_call_did_before_it_failed_is_no_waiting() -> None:
    """A fetch of an hour, whose service then restarts, is made again."""
    impatient = RetryLimits(away=0.05, full=10.0)
    call = call_with_retries(failing(seconds=[0.1]), retry_limits=impatient, pause=no_pause)
    assert await call == "done"
    with pytest.raises(NodeLost):
        await call_with_retries(failing(seconds=[0.0, 0.1]), retry_limits=impatient, pause=no_pause)


async def test_a_service_that_was_full_and_then_restarts_is_waited_for_anew() -> None:
    answers: list[ServiceError] = [
        RemoteFailure(Status.INTERNAL, "INTERNAL", "a fault"),
        RemoteFailure(Status.CANCELLED, "CANCELLED", "it stops"),
        RemoteFailure(Status.INTERNAL, "INTERNAL", "a fault"),
    ]

    async def call() -> str:
        await asyncio.sleep(0.04)
        if answers:
            raise answers.pop(0)
        return "done"

    limits = RetryLimits(away=0.05, full=10.0, broken=0.03)
    assert await call_with_retries(call, retry_limits=limits, pause=no_pause) == "done"
