"""Converts the driver's values to messages and back."""

from typing import Final

from boatyard.gateway.v1 import coordinator_pb2 as pb
from boatyard.ledger.v1 import ledger_pb2

from services.common.rpc.mapper import Mapper
from services.lifecycle.ledger import Beat, Lease, Stage
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.value import unpack
from services.lifecycle.orphans import JobStatus

_LEASE: Final = Mapper(
    Lease, pb.ClaimedJob, by_hand={"job_id", "fence", "spec", "lease", "lease_duration", "order", "is_last"}
)
_STAGE: Final = Mapper(Stage, ledger_pb2.RecordedStage, by_hand={"result"})
_JOB_STATUS: Final = Mapper(JobStatus, ledger_pb2.JobStatus, by_hand={"job_id"})


def lease_to_proto(lease: Lease) -> pb.Lease:
    """Write the part of a lease that identifies it."""
    return pb.Lease(job_id=lease.job_id, fence=lease.fence)


def lease_from_proto(message: pb.ClaimedJob) -> Lease:
    """Read a claimed job."""
    spec = unpack(JobSpec, message.order)
    return _LEASE.from_proto(message, job_id=message.lease.job_id, fence=message.lease.fence, spec=spec)


def beat_from_proto(message: pb.RenewLeaseResponse) -> Beat:
    """Read the answer to a heartbeat."""
    return Beat(frozenset(message.held_job_ids), frozenset(message.cancel_requested_job_ids))


def stage_to_proto(stage: Stage) -> ledger_pb2.RecordedStage:
    """Write a stage."""
    return _STAGE.to_proto(stage, result=stage.result.encode())


def stage_from_proto(message: ledger_pb2.RecordedStage) -> Stage:
    """Read a stage."""
    return _STAGE.from_proto(message, result=message.result.decode())


def job_status_from_proto(message: ledger_pb2.JobStatus) -> JobStatus:
    """Read a job's status."""
    return _JOB_STATUS.from_proto(message)
