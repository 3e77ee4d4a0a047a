"""Convert claims, leases and endings of jobs between messages and values: first the readers, then the writers."""

import re
from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.common.fence import Fence
from services.common.rpc.times import duration_to_proto
from services.gateway import scope
from services.gateway.coordinators.model import HeldLease, coordinator_cell
from services.gateway.jobs.submission_wire import branch_from_proto
from services.gateway.ledger.claiming import ClaimFilter
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.cells import Cell
from services.gateway.wire.validation import KIB, Validator
from services.lifecycle.ledger import Beat, Lease
from services.lifecycle.model.outcome import Failure
from services.lifecycle.model.output import Output
from services.lifecycle.model.value import pack

_MAX_LEASES: Final = 1000
_MAX_CAPACITY: Final = 1000
_MAX_FILTERS: Final = 100
_MAX_NAME_CHARACTERS: Final = 63
_MAX_WAIT_SECONDS: Final = 300.0
_ANSWER_SECONDS: Final = 1.0  # left of the call's deadline, for the answer to arrive
_MAX_TEXT_BYTES: Final = 64 * KIB
_MAX_MESSAGE_BYTES: Final = 4 * KIB
_MAX_URL_CHARACTERS: Final = 2048

_REASON_PATTERN: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_COMMIT_PATTERN: Final = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})?")
_URL_PATTERN: Final = re.compile(r"(https?://[^\s\x00-\x1f\x7f/?#@]+([/?#][^\s\x00-\x1f\x7f]*)?)?")


def held_lease_from_proto(check: Validator, coordinator_id: str, lease: pb.Lease, prefix: str = "") -> HeldLease:
    """Read the lease under which a call is made."""
    name = check.required_id(f"{prefix}coordinator_id", coordinator_id)
    return HeldLease(name, *_lease_from_proto(check, f"{prefix}lease", lease))


def coordinator_from_proto(request: pb.RegisterCoordinatorRequest) -> Cell:
    """Read the coordinator that has been started. Raises Invalid with all violations."""
    with Validator() as check:
        if not 0 <= request.capacity <= _MAX_CAPACITY:
            check.add("capacity", f"must be from 0 to {_MAX_CAPACITY}")
        if len(request.version) > _MAX_NAME_CHARACTERS:
            check.add("version", f"must be at most {_MAX_NAME_CHARACTERS} characters")
        return coordinator_cell(
            check.required_id("coordinator_id", request.coordinator_id),
            host=check.line("host", request.host),
            version=check.line("version", request.version),
            capacity=request.capacity,
        )


def claim_from_proto(
    request: pb.ClaimJobRequest, remaining: float | None
) -> tuple[Cell, ClaimFilter, IdempotencyKey | None, float]:
    """Read a claim; `remaining` is the number of seconds until the call's deadline, or None.

    Return the claimer's cell, its filter, the request's key, and for how many seconds to wait at most.

    Raises Invalid with all violations, PermissionDenied for a project that the caller's token does not cover.
    """
    with Validator() as check:
        coordinator_id = check.required_id("coordinator_id", request.coordinator_id)
        if not 0 <= request.capacity <= _MAX_CAPACITY:
            check.add("capacity", f"must be from 1 to {_MAX_CAPACITY}")
        for index, project_id in enumerate(request.project_ids):
            check.required_id(f"project_ids[{index}]", project_id)
        filters = {"project_ids": request.project_ids, "kinds": request.kinds, "engines": request.engines}
        for field, names in filters.items():
            if len(names) > _MAX_FILTERS or any(not 0 < len(name) <= _MAX_NAME_CHARACTERS for name in names):
                check.add(field, f"must be at most {_MAX_FILTERS}, of 1 to {_MAX_NAME_CHARACTERS} characters")
        key = check.idempotency_key(request, request.request_id)
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
    return coordinator_cell(coordinator_id, capacity=request.capacity), claim_filter, key, seconds


def renewal_from_proto(request: pb.RenewLeaseRequest) -> tuple[Cell, list[Fence]]:
    """Read which leases a coordinator renews. Raises Invalid with all violations."""
    with Validator() as check:
        coordinator_id = check.required_id("coordinator_id", request.coordinator_id)
        if len(request.leases) > _MAX_LEASES:
            check.add("leases", f"must be at most {_MAX_LEASES}")
        fences = [
            Fence(*_lease_from_proto(check, f"leases[{number}]", each)) for number, each in enumerate(request.leases)
        ]
    return coordinator_cell(coordinator_id), fences


def completion_from_proto(request: pb.CompleteJobRequest) -> tuple[HeldLease, Output]:
    """Read the output of a job that has succeeded. Raises Invalid with all violations."""
    with Validator() as check:
        held = held_lease_from_proto(check, request.coordinator_id, request.lease)
        if len(request.pull_request_url) > _MAX_URL_CHARACTERS or not _URL_PATTERN.fullmatch(request.pull_request_url):
            rule = f"must be an http or https URL of at most {_MAX_URL_CHARACTERS} characters, with no user in it"
            check.add("pull_request_url", rule)
        if request.pull_request_number < 0:
            check.add("pull_request_number", "must not be negative")
        if not _COMMIT_PATTERN.fullmatch(request.commit_id):
            check.add("commit_id", "must be 40 or 64 characters of 0-9 and a-f")
        output = replace(
            _usage_from_proto(check, request.usage),
            summary=check.text("summary", request.summary, _MAX_TEXT_BYTES),
            commit_id=request.commit_id,
            branch=branch_from_proto(check, "branch", request.branch),
            pushed=bool(request.branch),
            pull_request_url=request.pull_request_url,
            pull_request_number=request.pull_request_number,
            review_comment=check.text("review_comment", request.review_comment, _MAX_TEXT_BYTES),
        )
    return held, output


def failure_from_proto(request: pb.FailJobRequest) -> tuple[HeldLease, Failure, Output]:
    """Read why an attempt failed, and the output that there is all the same. Raises Invalid with all violations."""
    with Validator() as check:
        held = held_lease_from_proto(check, request.coordinator_id, request.lease)
        if not _REASON_PATTERN.fullmatch(request.reason):
            check.add("reason", "must be 1 to 63 characters of A-Z, 0-9 and '_', beginning with a letter")
        message = check.text("message", request.message, _MAX_MESSAGE_BYTES)
        output = replace(
            _usage_from_proto(check, request.usage), summary=check.text("summary", request.summary, _MAX_TEXT_BYTES)
        )
    return held, Failure(request.reason, message), output


def claimed_job_to_proto(lease: Lease, lease_seconds: float) -> pb.ClaimedJob:
    """Write a job that a coordinator has claimed."""
    return pb.ClaimedJob(
        lease=pb.Lease(job_id=lease.job_id, fence=lease.fence),
        attempt=lease.attempt,
        execution_id=lease.execution_id,
        lease_duration=duration_to_proto(lease_seconds),
        cancel_requested=lease.cancel_requested,
        order=pack(lease.spec),
        is_moved=lease.is_moved,
        last_attempt=lease.last_attempt,
        snapshot_id=lease.snapshot_id,
    )


def renewal_to_proto(beat: Beat, lease_seconds: float) -> pb.RenewLeaseResponse:
    """Write which leases still hold, and which jobs are to be cancelled."""
    return pb.RenewLeaseResponse(
        held_job_ids=sorted(beat.held),
        cancel_requested_job_ids=sorted(beat.cancel_requested),
        lease_duration=duration_to_proto(lease_seconds),
    )


def _lease_from_proto(check: Validator, field: str, lease: pb.Lease) -> tuple[str, int]:
    if lease.fence < 1:
        check.add(f"{field}.fence", "must be at least 1")
    return check.required_id(f"{field}.job_id", lease.job_id), lease.fence


def _usage_from_proto(check: Validator, usage: pb.Usage) -> Output:
    counts = {field.name: number for field, number in usage.ListFields()}
    for name, number in counts.items():
        if not 0 <= number < 1 << 62:
            check.add(f"usage.{name}", "must not be negative")
    return Output(
        tokens_used=counts.get("tokens_used"),
        cost_usd=counts.get("cost_usd"),
        tool_calls=counts.get("tool_calls"),
        turns=counts.get("turns"),
    )
