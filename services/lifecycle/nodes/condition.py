"""Watches whether this machine's node services can carry jobs: what is known of that decides what its driver claims."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import grpc
import structlog
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.readiness.v1 import readiness_pb2 as readiness_pb
from boatyard.readiness.v1.readiness_pb2_grpc import ReadinessServiceStub

from services.agent.wire import allowance_from_proto
from services.common.errors import ServiceError, Status, Unavailable
from services.common.rpc.status import service_error
from services.lifecycle.ledger import LedgerUnavailable
from services.lifecycle.model.condition import Condition, Trouble
from services.lifecycle.nodes.client import Nodes
from services.lifecycle.nodes.wire import IMAGES, TROUBLE, agents_from_proto

_ANSWER_SECONDS: Final = 10.0  # a service that is just started again is waited for
_EVERY_SECONDS: Final = 5.0
_WITH_TROUBLES_SECONDS: Final = 1.0
_MAX_MESSAGE: Final = 1024

log = structlog.get_logger()


class NodeWatch:
    """Asks the node services for their condition, and passes it to `record`, which may raise what ledgers do."""

    def __init__(self, nodes: Nodes, record: Callable[[Condition], Awaitable[None]]) -> None:
        channels = {"workspace": nodes.workspace, "git": nodes.git, "execution": nodes.execution}
        self._readiness = {service: ReadinessServiceStub(channel) for service, channel in channels.items()}
        self._execution = ExecutionServiceStub(nodes.execution)
        self._record = record
        self._troubles: Sequence[Trouble] = ()

    async def run(self) -> None:
        """Look, and look again every few seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_WITH_TROUBLES_SECONDS if self._troubles else _EVERY_SECONDS)

    async def look(self) -> None:
        """Ask now, and record the answer."""
        condition = await self.condition()
        # By their reasons: messages have numbers, and a line about each would itself fill a disk.
        if {trouble.reason for trouble in condition.troubles} != {trouble.reason for trouble in self._troubles}:
            for trouble in condition.troubles:
                log.warning("takes no new jobs", reason=trouble.reason, why=trouble.message)
            if not condition.troubles:
                log.info("takes new jobs again")
        self._troubles = condition.troubles
        try:
            await self._record(condition)
        except (Unavailable, LedgerUnavailable) as error:
            log.info("the condition of the node is recorded later", error=str(error))
        except Exception:  # one failed record must not end the loop
            log.exception("the condition of the node could not be recorded")

    async def condition(self) -> Condition:
        """Return the condition now, or after some seconds for a service that does not answer."""
        described, of_services = await asyncio.gather(
            self._described(), asyncio.gather(*map(self._troubles_of, self._readiness))
        )
        return replace(described, troubles=tuple(trouble for troubles in of_services for trouble in troubles))

    async def _described(self) -> Condition:
        """Return what the execution service says of itself."""
        request = execution_pb.DescribeNodeRequest()
        try:
            answer = await self._execution.DescribeNode(request, timeout=_ANSWER_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError:  # then it does not tell its readiness either
            return Condition(None)
        allowance = allowance_from_proto(answer.allowed_tiers, answer.allowed_networks, answer.limits)
        images = IMAGES.from_proto(answer.container_images) if answer.HasField("container_images") else None
        return Condition(allowance, agents=agents_from_proto(answer.agents), images=images)

    async def _troubles_of(self, service: str) -> Sequence[Trouble]:
        request = readiness_pb.GetReadinessRequest()
        try:
            answer = await self._readiness[service].GetReadiness(request, timeout=_ANSWER_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as raw:
            error = service_error(raw)
            if error.status is Status.UNIMPLEMENTED:  # it has not been upgraded yet
                return ()
            return [_silent(service, error)]
        return [_bounded(TROUBLE.from_proto(trouble)) for trouble in answer.troubles]


def _silent(service: str, error: ServiceError) -> Trouble:
    return _bounded(Trouble("SERVICE_UNAVAILABLE", f"its {service} service does not answer: {error.message}"))


def _bounded(trouble: Trouble) -> Trouble:
    return Trouble(trouble.reason, trouble.message[:_MAX_MESSAGE])
