"""Which refusals of a node service are answers, and which are waited out, and for how long."""

import pytest

from services.common.errors import Exhausted, FailedPrecondition, NotFound, ServiceError, Unavailable
from services.common.rpc.bounds import Room, Share, TooManyCallsError
from services.lifecycle.nodes import RetryLimits

PATIENCE = RetryLimits(away=5.0, full=60.0)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Unavailable("DRAINING", "it restarts"), 5.0),
        (FailedPrecondition("WORKSPACE_HELD", "a sandbox that is ending has it", "ws-1"), 5.0),
        (FailedPrecondition("WORKSPACE_NOT_MOUNTED", "its service begins to run again", "ws-1"), 5.0),
        (Exhausted("NODE_BUSY", "no memory left", retry_after=2.0), 60.0),
        (TooManyCallsError(Room.CALLS, Share(1, 1), is_callers=True, is_told=True), 60.0),
        (Exhausted("DISK_FULL", "no room", quota="disk"), None),
        (FailedPrecondition("STALE_FENCE", "another has it", "job-1"), None),
        (NotFound("workspace", "ws-1"), None),
    ],
)
def test_how_long_a_node_is_asked_again(error: ServiceError, seconds: float | None) -> None:
    assert PATIENCE.for_error(error) == seconds
