"""Writes the service's own types as the contract's messages, except events: see `events`."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from services.execution.inbox.messages import PermissionAnswer, PermissionRequest
from services.execution.model import Execution, State
from services.execution.service.capabilities import Capability
from services.execution.service.terminals import InputProgress
from services.sandbox.spec import Tier

TIERS = {tier: sandbox_pb2.SandboxTier.Value(f"SANDBOX_TIER_{tier.name}") for tier in Tier}

_STATES = {state: pb.NodeExecution.State.Value(f"STATE_{state}") for state in State}


def execution_to_proto(value: Execution, pending: Sequence[PermissionRequest] = ()) -> pb.NodeExecution:
    """Convert an execution, and the agent's questions that nobody has answered."""
    message = pb.NodeExecution(
        execution_id=value.execution_id,
        purpose=pb.ExecutionSpec.Purpose.Value(f"PURPOSE_{value.purpose}"),
        job_id=value.job_id,
        state=_STATES[value.state],
        reason=value.reason,
        message=value.message,
        processes_left=value.processes_left,
        sandbox_tier=TIERS[value.sandbox_tier],
        create_time=_timestamp(value.create_time),
        start_time=_timestamp(value.start_time),
        end_time=_timestamp(value.end_time),
        last_sequence=value.last_sequence,
        output_bytes=value.output_bytes,
        events_trimmed=value.events_trimmed,
    )
    if value.exit_code is not None:
        message.exit_code = value.exit_code
    if value.signal is not None:
        message.signal = value.signal
    if value.end_verified_by is not None:
        message.end_verified_by = pb.NodeExecution.EndVerification.Value(f"END_VERIFICATION_{value.end_verified_by}")
    if value.vitals is not None:
        message.vitals.MergeFrom(event_pb2.Vitals(**asdict(value.vitals)))
    if value.model_use is not None:
        message.model_use.MergeFrom(pb.ModelUse(**asdict(value.model_use)))
    message.pending_permissions.extend(map(permission_request_to_proto, pending))
    return message


def permission_request_to_proto(value: PermissionRequest) -> event_pb2.PermissionRequest:
    """Convert a question of an agent."""
    return event_pb2.PermissionRequest(**asdict(value))


def answer_to_proto(permission_id: str, value: PermissionAnswer) -> event_pb2.PermissionAnswer:
    """Convert an answer."""
    return event_pb2.PermissionAnswer(permission_id=permission_id, **asdict(value))


def progress_to_proto(value: InputProgress) -> pb.AttachExecutionResponse:
    """Convert how much input has reached a terminal."""
    return pb.AttachExecutionResponse(
        taken_bytes=value.bytes, end=None if value.end is None else execution_to_proto(value.end)
    )


def capability_to_proto(value: Capability) -> pb.Capability:
    """Convert a capability."""
    return pb.Capability(name=value.name, provided_by=value.provided_by, complaint=value.complaint)


def _timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    result = Timestamp()
    result.FromDatetime(value)
    return result
