"""The RPCs of CoordinatorService: they translate between messages and the ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from boatyard.gateway.v1 import coordinator_pb2 as pb
from boatyard.gateway.v1.coordinator_pb2_grpc import CoordinatorServiceServicer
from grpc import aio

from services.common.rpc.draining import Draining
from services.common.rpc.times import duration_to_proto
from services.gateway.cells.store import CellStore
from services.gateway.coordinators import wire
from services.gateway.coordinators.context_wire import context_to_proto
from services.gateway.coordinators.endings import check_approved, complete, end_question, fail
from services.gateway.coordinators.ledgers import CoordinatorLedgers
from services.gateway.coordinators.model import coordinator_cell
from services.gateway.coordinators.store import CoordinatorStore
from services.gateway.coordinators.versions import EARLIER_WAIT_SECONDS, Versions
from services.gateway.jobs import wire as job_wire
from services.gateway.jobs.store import JobStore
from services.gateway.ledger.looks import looks
from services.gateway.ledger.notifier import WORK, JobNotifier
from services.gateway.wire.events import events_from_proto
from services.gateway.wire.requests import idempotency_key
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.states import JobState

Context = aio.ServicerContext[Any, Any]

_ALREADY_FAILED = (JobState.FAILED, JobState.CANCELLED, JobState.PENDING)
"""The states of a job whose attempt has already failed, where FailJob is a repetition."""
_CLAIM_POLL_SECONDS = 1.0
"""How often a waiting claim looks for jobs that other gateways have admitted."""


class CoordinatorServicer(CoordinatorServiceServicer):
    """Serves boatyard.gateway.v1.CoordinatorService."""

    def __init__(
        self,
        store: CoordinatorStore,
        ledgers: CoordinatorLedgers,
        versions: Versions,
        *,
        cells: CellStore,
        jobs: JobStore,
        notifier: JobNotifier,
        draining: Draining,
    ) -> None:
        self._store = store
        self._cells = cells
        self._ledgers = ledgers
        self._versions = versions
        self._jobs = jobs
        self._notifier = notifier
        self._draining = draining

    async def RegisterCoordinator(
        self, request: pb.RegisterCoordinatorRequest, context: Context
    ) -> pb.RegisterCoordinatorResponse:
        coordinator, allowance = wire.coordinator_from_proto(request), wire.allowance_of_coordinator(request)
        async with self._ledgers.ledger(coordinator) as ledger:
            await self._cells.register(coordinator, Condition(allowance))
            jobs_held = await ledger.take_over_own(coordinator.host)
        return pb.RegisterCoordinatorResponse(
            lease_duration=duration_to_proto(self._ledgers.lease_seconds), jobs_held=jobs_held
        )

    async def ReportCondition(self, request: pb.ReportConditionRequest, context: Context) -> pb.ReportConditionResponse:
        await self._store.enrol(coordinator_cell(request.coordinator_id))
        await self._cells.set_condition(request.coordinator_id, wire.condition_from_proto(request))
        return pb.ReportConditionResponse()

    async def ClaimJob(self, request: pb.ClaimJobRequest, context: Context) -> pb.ClaimJobResponse:
        coordinator, claim_filter, seconds = wire.claim_from_proto(request, context.time_remaining())
        key = idempotency_key(request)
        await self._store.enrol(coordinator)
        if not await self._versions.can_read_jobs(coordinator.cell_id, request.request_id):
            await asyncio.sleep(min(EARLIER_WAIT_SECONDS, seconds))
            text = "reads jobs in an earlier form than this gateway writes them"
            raise await self._versions.refusal(coordinator.cell_id, text)
        deadline = asyncio.get_running_loop().time() + seconds
        with self._notifier.subscribe(WORK) as subscription:
            while True:
                lease = await self._store.claim(coordinator.cell_id, claim_filter, key)
                remaining = deadline - asyncio.get_running_loop().time()
                if lease is not None:
                    return pb.ClaimJobResponse(job=wire.claimed_job_to_proto(lease, self._ledgers.lease_seconds))
                if remaining <= 0:
                    return pb.ClaimJobResponse()
                async with self._draining.interrupting():
                    await subscription.wait(min(remaining, _CLAIM_POLL_SECONDS))

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        coordinator, fences = wire.renewal_from_proto(request)
        async with self._ledgers.ledger(coordinator) as ledger:
            return wire.renewal_to_proto(await ledger.prolong(fences), self._ledgers.lease_seconds)

    async def WatchCoordinator(
        self, request: pb.WatchCoordinatorRequest, context: Context
    ) -> AsyncIterator[pb.WatchCoordinatorResponse]:
        await self._store.enrol(coordinator_cell(request.coordinator_id))
        cancelled: frozenset[str] = frozenset()

        async def look() -> frozenset[str] | None:
            nonlocal cancelled
            reported, cancelled = cancelled, await self._store.cancelled(request.coordinator_id)
            return cancelled if cancelled - reported else None

        changes = looks(self._notifier, WORK, look)
        async with aclosing(self._draining.stream(changes, start=0, position_after=lambda _: 0)) as lists:
            async for job_ids in lists:
                yield pb.WatchCoordinatorResponse(cancel_requested_job_ids=sorted(job_ids or ()))

    async def GetWorkContext(self, request: pb.GetWorkContextRequest, context: Context) -> pb.GetWorkContextResponse:
        held = wire.held_lease_from_proto(request.coordinator_id, request.lease)
        return context_to_proto(await self._store.context(held))

    async def AppendEvents(
        self, request_iterator: AsyncIterator[pb.AppendEventsRequest], context: Context
    ) -> pb.AppendEventsResponse:
        first = await anext(aiter(request_iterator), pb.AppendEventsRequest())
        held, execution_id = wire.first_batch_from_proto(first), first.execution_id
        next_sequence = await self._store.append(held, execution_id, events_from_proto(first), last=first.is_last)
        async for request in request_iterator:
            next_sequence = await self._store.append(
                held, execution_id, events_from_proto(request), last=request.is_last
            )
        return pb.AppendEventsResponse(next_sequence=next_sequence)

    async def CompleteJob(self, request: pb.CompleteJobRequest, context: Context) -> pb.CompleteJobResponse:
        held, output = wire.completion_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            if (await self._jobs.job(held.job_id)).state is not JobState.SUCCEEDED:  # else this is a repetition
                if question := end_question(lease, output):
                    check_approved(await self._store.ask(held, question))
                await complete(ledger, lease, output)
        return pb.CompleteJobResponse(job=job_wire.job_to_proto(await self._jobs.job(held.job_id)))

    async def FailJob(self, request: pb.FailJobRequest, context: Context) -> pb.FailJobResponse:
        held, failure, output = wire.failure_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            if (await self._jobs.job(held.job_id)).state not in _ALREADY_FAILED:
                await fail(ledger, lease, failure, output)
        return pb.FailJobResponse(job=job_wire.job_to_proto(await self._jobs.job(held.job_id)))
