"""The clients of a coordinator: of the gateways, one of several addresses, and of this machine's events."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final, Self, TypeVar

import grpc
import structlog
from boatyard.execution.v1 import event_pb2, execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.gateway.v1 import coordinator_pb2
from boatyard.gateway.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from boatyard.ledger.v1 import ledger_pb2
from boatyard.ledger.v1.ledger_pb2_grpc import LedgerServiceStub

from services.common.errors import RemoteFailure, ServiceError, StartError, Status, Unavailable
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.common.rpc.tls import ClientTls
from services.coordinator import wire
from services.lifecycle.ledger import Lease, LeaseLost, LedgerUnavailable
from services.lifecycle.orphans import JobStatus

T = TypeVar("T")

_DESCRIPTORS: Final = (
    coordinator_pb2.DESCRIPTOR.services_by_name["CoordinatorService"],
    ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"],
)
# This gateway cannot answer now: try again later, or another one. A token that is no longer known is one that an
# administrator is about to replace, and a gateway of another version is one that is about to be upgraded, or whose
# coordinator is: until then no job is given up.
_NO_ANSWER: Final = frozenset(
    {
        *(Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED, Status.RESOURCE_EXHAUSTED),
        *(Status.UNAUTHENTICATED, Status.PERMISSION_DENIED, Status.UNIMPLEMENTED),
    }
)
_APPEND_SECONDS: Final = 30.0  # for up to a MiB, over a slow link
_STATUSES_AT_ONCE: Final = 1000  # per request
_LOST: Final = frozenset({"LEASE_LOST", "JOB_NOT_FOUND"})
_OLDER_GATEWAY: Final = (
    f"the gateway is older than this coordinator (Boatyard {version('boatyard')}), which needs "
    f"{_DESCRIPTORS[1].full_name}: upgrade the gateway; until then no job is claimed, and those at hand are kept"
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stubs:
    """The stubs of one gateway."""

    address: str
    coordinator: CoordinatorServiceStub
    ledger: LedgerServiceStub


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Some events of an execution, in order; with `is_last` the execution has ended, and there are no more."""

    events: tuple[event_pb2.Event, ...]
    is_last: bool


class LocalEvents:
    """The events of executions on this machine. Errors of its execution service are raised as ServiceErrors."""

    def __init__(self, execution: grpc.aio.Channel) -> None:
        self._stub = ExecutionServiceStub(execution)

    async def of(self, execution_id: str, first: int) -> AsyncGenerator[EventBatch, None]:
        """Yield an execution's events, from number `first` to its end, and heartbeats (batches without events)."""
        request = execution_pb2.WatchEventsRequest(execution_id=execution_id, from_sequence=first, follow=True)
        try:
            async with streaming(self._stub.WatchEvents(request)) as messages:
                async for message in messages:
                    yield EventBatch(tuple(message.events), message.HasField("end"))
        except grpc.aio.AioRpcError as error:
            raise service_error(error) from error


class UpstreamUnavailable(LedgerUnavailable):
    """No gateway has answered; `error` is the reason."""

    def __init__(self, address: str, error: ServiceError) -> None:
        super().__init__(f"{address}: {error.message}")
        self.error = error


class Upstream:
    """The gateways: one is used for as long as it answers, and then the next. An async context manager."""

    def __init__(self, addresses: Sequence[str], token: str, tls: ClientTls | None = None) -> None:
        """Raises StartError when there is no directory of a gateway's socket."""
        try:
            self._channels = [open_channel(address, token, services=_DESCRIPTORS, tls=tls) for address in addresses]
        except Unavailable as error:
            raise StartError(error.message) from None
        self._stubs = [
            Stubs(address, CoordinatorServiceStub(channel), LedgerServiceStub(channel))
            for address, channel in zip(addresses, self._channels, strict=True)
        ]
        self._current = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def ask(self, call: Callable[[Stubs], Awaitable[T]]) -> T:
        """Call a gateway, and return its answer.

        Raises LeaseLost when the gateway says so, LedgerUnavailable when it does not answer, else its ServiceError.
        """
        index = self._current
        try:
            return await call(self._stubs[index])
        except grpc.aio.AioRpcError as raw:
            error = service_error(raw)
            if error.status is Status.UNIMPLEMENTED:
                error = RemoteFailure(error.status, error.reason, _OLDER_GATEWAY)
            if error.status in _NO_ANSWER:
                self._switch_from(index, error)
                raise UpstreamUnavailable(self._stubs[index].address, error) from error
            if error.reason in _LOST:
                raise LeaseLost(error.message) from error
            raise error from raw

    async def append(self, coordinator_id: str, lease: Lease, execution_id: str, events: EventBatch) -> int:
        """Send events of an execution, and return the number of the next one; without events, only ask for that number.

        Raises LeaseLost, LedgerUnavailable, OutOfRange (EVENTS_OUT_OF_RANGE).
        """
        request = coordinator_pb2.AppendEventsRequest(
            coordinator_id=coordinator_id,
            lease=wire.lease_to_proto(lease),
            execution_id=execution_id,
            events=events.events,
            is_last=events.is_last,
        )

        async def once() -> AsyncIterator[coordinator_pb2.AppendEventsRequest]:
            yield request

        answer = await self.ask(lambda stubs: stubs.coordinator.AppendEvents(once(), timeout=_APPEND_SECONDS))
        return answer.next_sequence

    async def watch(self, coordinator_id: str, on_cancel: Callable[[], None]) -> None:
        """Call `on_cancel` whenever a job of ours is cancelled, until the link breaks. Raises LedgerUnavailable."""
        request = coordinator_pb2.WatchCoordinatorRequest(coordinator_id=coordinator_id)

        async def listen(stubs: Stubs) -> None:
            async with streaming(stubs.coordinator.WatchCoordinator(request)) as messages:
                async for message in messages:
                    if message.cancel_requested_job_ids:
                        on_cancel()

        await self.ask(listen)

    async def job_statuses(self, coordinator_id: str, job_ids: Collection[str]) -> Mapping[str, JobStatus]:
        """Return the status of jobs on this machine; unknown jobs are left out. Raises ServiceError."""
        statuses: dict[str, JobStatus] = {}
        ids = sorted(job_ids)
        for start in range(0, len(ids), _STATUSES_AT_ONCE):
            batch = ids[start : start + _STATUSES_AT_ONCE]
            request = ledger_pb2.ReadJobStatusesRequest(coordinator_id=coordinator_id, jobs=batch)
            try:
                answer = await self.ask(partial(_statuses, request))
            except UpstreamUnavailable as error:
                raise error.error from error
            statuses.update((each.job_id, wire.job_status_from_proto(each)) for each in answer.job_statuses)
        return statuses

    def _switch_from(self, index: int, error: ServiceError) -> None:
        """Use another gateway the next time, unless a concurrent call has switched already."""
        if self._current == index and len(self._stubs) > 1:
            self._current = (index + 1) % len(self._stubs)
            log.warning("switching to another gateway", address=self._stubs[self._current].address, error=error.message)


async def _statuses(request: ledger_pb2.ReadJobStatusesRequest, stubs: Stubs) -> ledger_pb2.ReadJobStatusesResponse:
    return await stubs.ledger.ReadJobStatuses(request)
