"""The RPC that returns what keeps a service from doing its part of a job."""

from collections.abc import Awaitable, Callable
from typing import Any

from boatyard.readiness.v1 import readiness_pb2 as pb
from boatyard.readiness.v1.readiness_pb2_grpc import ReadinessServiceServicer, add_ReadinessServiceServicer_to_server
from grpc import aio

from services.common.errors import ServiceError
from services.common.rpc.server import Registration

Context = aio.ServicerContext[Any, Any]
Check = Callable[[], Awaitable[None]]
"""Raises the ServiceError that a job would be refused with now."""


class ReadinessServicer(ReadinessServiceServicer):
    """Serves boatyard.readiness.v1.ReadinessService."""

    def __init__(self, *checks: Check) -> None:
        self._checks = checks

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: Context) -> pb.GetReadinessResponse:
        troubles = []
        for check in self._checks:
            try:
                await check()
            except ServiceError as error:
                troubles.append(pb.Trouble(reason=error.reason, message=error.message))
        return pb.GetReadinessResponse(troubles=troubles)


def registration(*checks: Check) -> Registration:
    """Return its registration, to serve it beside a service's own RPCs."""
    return Registration(
        pb.DESCRIPTOR.services_by_name["ReadinessService"].full_name,
        add_ReadinessServiceServicer_to_server,
        ReadinessServicer(*checks),
    )
