"""Converts the driver's values to messages and back."""

from typing import Final

from boatyard.gateway.v1 import coordinator_pb2 as pb
from boatyard.gateway.v1 import job_pb2, policy_pb2
from boatyard.ledger.v1 import ledger_pb2
from google.protobuf.duration_pb2 import Duration

from services.lifecycle.ledger import Beat, Lease, Stage
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.states import Retention, StageState
from services.lifecycle.model.value import unpack
from services.lifecycle.orphans import JobStatus

_STATES: Final = {job_pb2.StageRecord.State.Value(f"STATE_{state}"): state for state in StageState}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}


def lease_to_proto(lease: Lease) -> pb.Lease:
    """Write the part of a lease that identifies it."""
    return pb.Lease(job_id=lease.job_id, fence=lease.fence)


def lease_from_proto(message: pb.ClaimedJob) -> Lease:
    """Read a claimed job."""
    return Lease(
        job_id=message.lease.job_id,
        fence=message.lease.fence,
        attempt=message.attempt,
        execution_id=message.execution_id,
        spec=unpack(JobSpec, message.order),
        cancel_requested=message.cancel_requested,
        is_moved=message.is_moved,
        last_attempt=message.last_attempt,
        snapshot_id=message.snapshot_id,
    )


def beat_from_proto(message: pb.RenewLeaseResponse) -> Beat:
    """Read the answer to a heartbeat."""
    return Beat(frozenset(message.held_job_ids), frozenset(message.cancel_requested_job_ids))


def stage_to_proto(stage: Stage) -> ledger_pb2.RecordedStage:
    """Write a stage."""
    return ledger_pb2.RecordedStage(
        name=stage.name, state=_STATE_NUMBERS[stage.state], result=stage.result.encode(), message=stage.message
    )


def stage_from_proto(message: ledger_pb2.RecordedStage) -> Stage:
    """Read a stage."""
    return Stage(message.name, _STATES[message.state], message.result.decode(), message.message)


def job_status_from_proto(message: ledger_pb2.JobStatus) -> JobStatus:
    """Read a job's status."""
    retention = policy_pb2.Policy.Retention.Name(message.retention).removeprefix("RETENTION_")
    return JobStatus(message.execution_id, Retention(retention))


def seconds_from_proto(span: Duration) -> float:
    """Read a time span."""
    return span.ToNanoseconds() / 1e9
