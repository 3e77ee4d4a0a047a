"""The client of the gateway: its stubs, and the errors of its calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from boatyard.gateway.v1 import (
    admin_pb2,
    audit_pb2,
    auth_pb2,
    budget_pb2,
    catalog_pb2,
    checkpoint_pb2,
    cost_pb2,
    hook_pb2,
    job_pb2,
    runtime_pb2,
)
from boatyard.gateway.v1.admin_pb2_grpc import AdminServiceStub
from boatyard.gateway.v1.audit_pb2_grpc import AuditServiceStub
from boatyard.gateway.v1.auth_pb2_grpc import TokenServiceStub
from boatyard.gateway.v1.budget_pb2_grpc import BudgetServiceStub
from boatyard.gateway.v1.catalog_pb2_grpc import CatalogServiceStub
from boatyard.gateway.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from boatyard.gateway.v1.cost_pb2_grpc import CostServiceStub
from boatyard.gateway.v1.hook_pb2_grpc import HookServiceStub
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub
from boatyard.gateway.v1.runtime_pb2_grpc import AgentRuntimeServiceStub
from google.protobuf.message import Message

from services.cli.connection import Connection, connection, is_pinned
from services.cli.fields import largest_field
from services.common.errors import Invalid, ServiceError, Unavailable
from services.common.home import Home
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.supervisor.plan import GATEWAY, RENEWAL, has_no_sockets

T = TypeVar("T")

MESSAGE_BYTES = 4 << 20
"""What a message may have, which is gRPC's own default."""

_PAGE = 1000
_DESCRIPTORS = [
    audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
    auth_pb2.DESCRIPTOR.services_by_name["TokenService"],
    budget_pb2.DESCRIPTOR.services_by_name["BudgetService"],
    catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"],
    checkpoint_pb2.DESCRIPTOR.services_by_name["CheckpointService"],
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"],
    cost_pb2.DESCRIPTOR.services_by_name["CostService"],
    hook_pb2.DESCRIPTOR.services_by_name["HookService"],
    job_pb2.DESCRIPTOR.services_by_name["JobService"],
    runtime_pb2.DESCRIPTOR.services_by_name["AgentRuntimeService"],
]


class Gateway:
    """The stubs of one gateway."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self.admin = _weighed(AdminServiceStub(channel))
        self.budgets = _weighed(BudgetServiceStub(channel))
        self.catalog = _weighed(CatalogServiceStub(channel))
        self.checkpoints = _weighed(CheckpointServiceStub(channel))
        self.costs = _weighed(CostServiceStub(channel))
        self.hooks = _weighed(HookServiceStub(channel))
        self.jobs = _weighed(JobServiceStub(channel))
        self.runtime = _weighed(AgentRuntimeServiceStub(channel))
        self.audit = _weighed(AuditServiceStub(channel))
        self.tokens = _weighed(TokenServiceStub(channel))
        self.address = address

    async def ask(self, call: Awaitable[T]) -> T:
        """Wait for an answer. Raises ServiceError, with a message for people when the gateway is not reachable."""
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self.problem(error) from None

    async def list_all(self, rpc: Callable[[Any], Awaitable[Any]], request: Any, limit: int | None = None) -> list[Any]:  # noqa: ANN401
        """Return all pages of a List RPC, or the first `limit` results: the repeated field of its responses."""
        results: list[Any] = []
        while True:
            request.page_size = _PAGE if limit is None else min(limit - len(results), _PAGE)
            response = await self.ask(rpc(request))
            results += next((value for field, value in response.ListFields() if field.is_repeated), ())
            request.page_token = response.next_page_token
            if not request.page_token or (limit is not None and len(results) >= limit):
                return results[:limit]

    def problem(self, error: grpc.aio.AioRpcError) -> ServiceError:
        """Return the error of a failed call."""
        described = service_error(error)
        if isinstance(described, Unavailable) and described.reason == described.status:  # gRPC's own word
            described.message = _nobody_answers(self.address)
        return described


def with_gateway(work: Callable[[Gateway], Awaitable[T]]) -> T:
    """Do some work with a connection to the gateway of this environment, in an event loop of its own."""

    async def main() -> T:
        async with open_gateway() as gateway:
            return await work(gateway)

    return asyncio.run(main())


@asynccontextmanager
async def open_gateway() -> AsyncIterator[Gateway]:
    """Connect to the gateway of this environment. Raises NotAllowedError when we have no token for it."""
    async with gateway_at(connection(Home.from_environment())) as gateway:
        yield gateway


@asynccontextmanager
async def gateway_at(chosen: Connection) -> AsyncIterator[Gateway]:
    """Connect to a gateway. Raises Unavailable when there is no socket."""
    try:
        channel = open_channel(chosen.address, chosen.token, services=_DESCRIPTORS, tls=chosen.tls)
    except Unavailable as error:
        error.message = _nobody_answers(chosen.address)
        raise
    async with channel:
        yield Gateway(channel, chosen.address)


def _weighed(stub: T) -> T:
    """Have the methods of a stub raise Invalid, with the field that is to blame, for a request that is too large."""
    for name, method in vars(stub).items():
        setattr(stub, name, _weighing(method))
    return stub


def _weighing(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*request: Any, **options: Any) -> Any:  # noqa: ANN401 - those of a method of any arity
        for message in request:
            if isinstance(message, Message) and message.ByteSize() > MESSAGE_BYTES:
                text = f"makes the request {message.ByteSize()} bytes large; at most {MESSAGE_BYTES} can be sent"
                raise Invalid([(largest_field(message), text)])
        return method(*request, **options)

    return call


def _nobody_answers(address: str) -> str:
    home = Home.from_environment()
    if address == home.socket(GATEWAY) and has_no_sockets(home):
        return f"the cell of {home.root} was started by an earlier version of Boatyard, which has no sockets: {RENEWAL}"
    known = " with the pinned certificate" if is_pinned(address) else ""
    return f"no gateway{known} answers at {address}: is `boatyard up` running?"
