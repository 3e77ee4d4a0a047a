"""Convert claims, leases and endings of jobs between messages and values: first the readers, then the writers."""

from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.agent.allowance import DEFAULT_ALLOWANCE, Allowance
from services.agent.wire import allowance_from_proto
from services.common.errors import Invalid
from services.common.fence import Fence
from services.common.rpc.mapper import Mapper
from services.common.rpc.times import duration_to_proto
from services.gateway import scope
from services.gateway.coordinators.model import HeldLease, coordinator_cell
from services.gateway.ledger.claim_queries import ClaimFilter
from services.gateway.values.cells import Cell
from services.lifecycle.ledger import Beat, Lease
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.outcome import Failure
from services.lifecycle.model.output import Output
from services.lifecycle.model.value import pack
from services.lifecycle.nodes.wire import TROUBLE

_MAX_WAIT_SECONDS: Final = 300.0
_ANSWER_SECONDS: Final = 1.0  # left of the call's deadline, for the answer to arrive

_LEASE: Final = Mapper(
    Lease, pb.ClaimedJob, by_hand={"job_id", "fence", "spec", "lease", "lease_duration", "order", "is_last"}
)


def held_lease_from_proto(coordinator_id: str, lease: pb.Lease) -> HeldLease:
    """Read the lease under which a call is made."""
    return HeldLease(coordinator_id, lease.job_id, lease.fence)


def coordinator_from_proto(request: pb.RegisterCoordinatorRequest) -> Cell:
    """Read the coordinator that has been started."""
    return coordinator_cell(
        request.coordinator_id, host=request.host, version=request.version, capacity=request.capacity
    )


def allowance_of_coordinator(request: pb.RegisterCoordinatorRequest) -> Allowance | None:
    """Read what a coordinator lets jobs choose: what it does not say is the default; None when it says nothing."""
    if not (request.allowed_tiers or request.allowed_networks or request.HasField("limits")):
        return None
    said = allowance_from_proto(request.allowed_tiers, request.allowed_networks, request.limits)
    return Allowance(
        said.tiers if request.allowed_tiers else DEFAULT_ALLOWANCE.tiers,
        said.networks if request.allowed_networks else DEFAULT_ALLOWANCE.networks,
        said.limits,
    )


def condition_from_proto(request: pb.ReportConditionRequest) -> Condition:
    """Read a coordinator's condition; without tiers, what it allows has not changed."""
    said = allowance_from_proto(request.allowed_tiers, request.allowed_networks, request.limits)
    troubles = tuple(map(TROUBLE.from_proto, request.troubles))
    return Condition(said if request.allowed_tiers else None, troubles, dict(request.agents) or None)


def claim_from_proto(request: pb.ClaimJobRequest, remaining: float | None) -> tuple[Cell, ClaimFilter, float]:
    """Read a claim; `remaining` is the number of seconds until the call's deadline, or None.

    Return the claimer's cell, its filter, and for how many seconds to wait at most. Raises PermissionDenied for a
    project that the caller's token does not cover.
    """
    for project_id in request.project_ids:
        scope.check(project_id)
    claim_filter = ClaimFilter(
        project_ids=frozenset(request.project_ids) or scope.visible(),
        kinds=frozenset(request.kinds) or None,
        engines=frozenset(request.engines) or None,
        capacity=request.capacity or 1,
    )
    seconds = _MAX_WAIT_SECONDS
    if remaining is not None:
        seconds = min(seconds, 0.8 * remaining, remaining - _ANSWER_SECONDS)
    return coordinator_cell(request.coordinator_id, capacity=request.capacity), claim_filter, seconds


def renewal_from_proto(request: pb.RenewLeaseRequest) -> tuple[Cell, list[Fence]]:
    """Read which leases a coordinator renews."""
    return coordinator_cell(request.coordinator_id), [Fence(each.job_id, each.fence) for each in request.leases]


def first_batch_from_proto(request: pb.AppendEventsRequest) -> HeldLease:
    """Read the lease from the first message of a stream of events. Raises Invalid."""
    present = {field.name for field, _ in request.ListFields()}
    if missing := [name for name in ("coordinator_id", "lease", "execution_id") if name not in present]:
        raise Invalid([(name, "is required") for name in missing])
    return held_lease_from_proto(request.coordinator_id, request.lease)


def completion_from_proto(request: pb.CompleteJobRequest) -> tuple[HeldLease, Output]:
    """Read the output of a job that has succeeded."""
    output = replace(
        _usage_from_proto(request.usage),
        summary=request.summary,
        commit_id=request.commit_id,
        branch=request.branch.encode(),
        pushed=bool(request.branch),
        pull_request_url=request.pull_request_url,
        pull_request_number=request.pull_request_number,
        review_comment=request.review_comment,
        reported=True,
    )
    return held_lease_from_proto(request.coordinator_id, request.lease), output


def failure_from_proto(request: pb.FailJobRequest) -> tuple[HeldLease, Failure, Output]:
    """Read why an attempt failed, and the output that there is all the same."""
    held = held_lease_from_proto(request.coordinator_id, request.lease)
    output = replace(_usage_from_proto(request.usage), summary=request.summary, reported=True)
    return held, Failure(request.reason, request.message), output


def claimed_job_to_proto(lease: Lease, lease_seconds: float) -> pb.ClaimedJob:
    """Write a job that a coordinator has claimed."""
    return _LEASE.to_proto(
        lease,
        lease=pb.Lease(job_id=lease.job_id, fence=lease.fence),
        lease_duration=duration_to_proto(lease_seconds),
        order=pack(lease.spec),
    )


def renewal_to_proto(beat: Beat, lease_seconds: float) -> pb.RenewLeaseResponse:
    """Write which leases still hold, and which jobs are to be cancelled."""
    return pb.RenewLeaseResponse(
        held_job_ids=sorted(beat.held),
        cancel_requested_job_ids=sorted(beat.cancel_requested),
        lease_duration=duration_to_proto(lease_seconds),
    )


def _usage_from_proto(usage: pb.Usage) -> Output:
    return Output(**{field.name: number for field, number in usage.ListFields()})
