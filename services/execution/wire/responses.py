"""Writes the service's own types as the contract's messages, except events: see `events`."""

from collections.abc import Iterable, Sequence
from typing import Final

from boatyard.agent.v1 import ask_pb2
from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.allowance import Allowance
from services.agent.asks import ReservationAnswer
from services.agent.images import ContainerImages
from services.agent.wire import RESERVATION_ANSWER, allowance_to_proto
from services.common.rpc.mapper import Mapper
from services.execution.inbox.messages import PermissionAnswer, PermissionRequest
from services.execution.model import Execution
from services.execution.service.agents import Agent
from services.execution.service.capabilities import Capability
from services.execution.service.terminals import InputProgress

EXECUTION: Final = Mapper(
    Execution, pb.NodeExecution, by_hand={"digest", "network", "pending_permissions", "session_id"}
)
CAPABILITY: Final = Mapper(Capability, pb.Capability)
AGENT: Final = Mapper(Agent, pb.AgentPreset)
_IMAGES: Final = Mapper(ContainerImages, pb.ContainerImages)
PERMISSION_ANSWER: Final = Mapper(PermissionAnswer, event_pb2.PermissionAnswer, by_hand={"permission_id"})
_PERMISSION_REQUEST: Final = Mapper(PermissionRequest, event_pb2.PermissionRequest)


def execution_to_proto(value: Execution, pending: Sequence[PermissionRequest] = ()) -> pb.NodeExecution:
    """Convert an execution, and the agent's questions that nobody has answered."""
    return EXECUTION.to_proto(value, pending_permissions=map(_PERMISSION_REQUEST.to_proto, pending))


def ask_answer_to_proto(value: ReservationAnswer) -> ask_pb2.Answer:
    """Convert the answer to what an execution asks."""
    return ask_pb2.Answer(reservation=RESERVATION_ANSWER.to_proto(value))


def node_to_proto(
    provided: Iterable[Capability], allowance: Allowance, images: ContainerImages, agents: Iterable[Agent] = ()
) -> pb.DescribeNodeResponse:
    """Convert what this machine can do for executions, and lets them choose."""
    return pb.DescribeNodeResponse(
        capabilities=map(CAPABILITY.to_proto, provided),
        agents=map(AGENT.to_proto, agents),
        container_images=_IMAGES.to_proto(images),
        reserves_model_use=True,
        **allowance_to_proto(allowance),
    )


def progress_to_proto(value: InputProgress) -> pb.AttachExecutionResponse:
    """Convert how much input has reached a terminal."""
    end = None if value.end is None else EXECUTION.to_proto(value.end)
    return pb.AttachExecutionResponse(taken_bytes=value.bytes, end=end)
