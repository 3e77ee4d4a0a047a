"""Which jobs a coordinator gets: those that it takes, and that its version can do."""

import asyncio
from typing import Any

import pytest
from boatyard.gateway.v1 import coordinator_pb2 as pb
from boatyard.ledger.v1 import ledger_pb2

from services.agent.recordings import Matching
from services.common.errors import Status
from services.coordinator.ledger import ClaimFilter, RemoteLedger
from services.gateway.values.jobs import WaitsFor
from services.lifecycle.model.budgets import BudgetLimits
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import JobState
from tests.kit.coordinators import Api, claimed, refusal, remote_ledger
from tests.kit.ledger import Books

NEEDS: dict[str, dict[str, Any]] = {
    "": {},
    "reserves_model_use": {"policy": Policy(budget=BudgetLimits(requests=1))},
    "replays": {"replay": Matching.STRICT, "recording": b"{}\n"},
}
"""What a job needs of its coordinator, by the field in which one says that it can."""


@pytest.mark.parametrize("need", NEEDS)
async def test_a_coordinator_gets_no_job_that_needs_what_its_version_cannot_do(
    book: Books, api: Api, remote: RemoteLedger, need: str
) -> None:
    """It would ask models what nobody has granted, or what a recording is to answer."""
    await book.admit(**NEEDS[need])
    lease = await claimed(remote)
    holder = ledger_pb2.Holder(coordinator_id="remote", lease=pb.Lease(job_id=lease.job_id, fence=lease.fence))
    for missing in sorted(filter(None, NEEDS), key=need.__eq__):  # what it needs last: then the job is lost
        able = dict.fromkeys(filter(None, NEEDS.keys() - {missing}), True)
        call = api.ledger.ReadJobContext(ledger_pb2.ReadJobContextRequest(holder=holder, **able))
        if missing != need:
            assert (await call).job_context
            continue
        refused = await refusal(call)
        assert (refused.status, refused.reason) == (Status.PERMISSION_DENIED, "COORDINATOR_VERSION")
        assert "upgrade the coordinator" in refused.message
        job = await book.store.job(lease.job_id)
        assert (job.state, job.executions[0].reason) == (JobState.PENDING, "COORDINATOR_VERSION")
        assert refused.message in job.executions[0].message
        taken = await claimed(await book.cell("elsewhere"))
        assert (taken.job_id, taken.attempt, taken.is_moved) == (lease.job_id, 2, False)
        assert taken.last_attempt == lease.last_attempt + 1, "it used up no attempt"


CLAIMS: dict[str, tuple[ClaimFilter, str | None]] = {
    "of any jobs": (ClaimFilter(capacity=10), None),
    "of the project's": (ClaimFilter(capacity=10, project_ids=("default", "other")), None),
    "of another project's": (ClaimFilter(capacity=10, project_ids=("other",)), "takes no jobs of project default"),
    "of another kind": (ClaimFilter(capacity=10, kinds=("merge",)), "takes no jobs of kind "),
    "of another engine": (ClaimFilter(capacity=10, engines=("anthropic",)), "takes no jobs of engine command"),
}


@pytest.mark.parametrize("claims", CLAIMS)
async def test_a_coordinator_is_a_place_for_the_jobs_that_it_takes_alone(book: Books, api: Api, claims: str) -> None:
    claim_filter, lacks = CLAIMS[claims]
    job_id = (await book.admit()).spec.job_id
    async with remote_ledger(api.address, "limited", claim_filter) as coordinator:
        claim = asyncio.ensure_future(coordinator.claim())
        if lacks is None:
            assert await claim is not None
            return
        async with asyncio.timeout(30):
            while (waiting := (await book.store.job(job_id)).waiting_for) is None:
                await asyncio.sleep(0.02)
        assert waiting.kind is WaitsFor.NO_PLACE
        assert waiting.message.startswith(f"no cell has a place: limited {lacks}")
        claim.cancel()
        await asyncio.gather(claim, return_exceptions=True)
