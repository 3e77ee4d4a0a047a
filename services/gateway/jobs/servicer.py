"""The RPCs of JobService: between the wire and the store."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from boatyard.gateway.v1 import job_pb2 as pb
from boatyard.gateway.v1.job_pb2_grpc import JobServiceServicer
from grpc import aio

from services.common.errors import NotFound
from services.common.rpc.draining import Draining
from services.gateway.jobs import wire
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.shared_reads import SharedReads
from services.gateway.jobs.store import JobStore, job_key
from services.gateway.jobs.submission_wire import branch_from_proto, submission_from_proto
from services.gateway.jobs.watching import watch_job, watch_jobs
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.scope import visible
from services.gateway.wire.budgets import LIMITS
from services.gateway.wire.lists import fitted
from services.gateway.wire.requests import idempotency_key, page_from_proto

Context = aio.ServicerContext[Any, Any]
IsGone = Callable[[str, Context], Awaitable[bool]]
"""Tells of a snapshot's id whether no cell has it; of what cannot be asked, that it is there."""


class JobServicer(JobServiceServicer):
    """Serves boatyard.gateway.v1.JobService."""

    def __init__(
        self,
        admission: Admission,
        store: JobStore,
        retries: Retries,
        notifier: JobNotifier,
        *,
        draining: Draining,
        is_gone: IsGone,
    ) -> None:
        self._admission = admission
        self._retries = retries
        self._store = store
        self._reads = SharedReads(store)
        self._notifier = notifier
        self._draining = draining
        self._is_gone = is_gone

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.CreateJobResponse:
        submission, key = submission_from_proto(request.spec), idempotency_key(request)
        named = submission.snapshot_id
        is_lost = bool(named) and await self._is_gone(named, context)
        if is_lost and not await self._admission.is_repeated(submission, key):
            raise _gone(named)
        view = await self._admission.admit(submission, key)
        return pb.CreateJobResponse(job=wire.job_to_proto(view))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=wire.job_to_proto(await self._store.job(request.job_id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        filters = replace(wire.filter_from_proto(request.filter), visible=visible())
        views, page = await self._store.jobs(filters, page_from_proto(request))
        jobs, token = fitted(views, page, lambda view: wire.job_to_proto(view, brief=True), job_key)
        total = None if request.page_token else await self._store.number_of_jobs(filters)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token, total_size=total)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=wire.job_to_proto(await self._store.cancel_job(request.job_id)))

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        key = idempotency_key(request)
        left = await self._retries.snapshot_left(request.job_id) if request.from_snapshot else ""
        if left and await self._is_gone(left, context):
            raise _gone(left)
        budget = LIMITS.from_proto(request.budget) if request.HasField("budget") else None
        view = await self._retries.retry(request.job_id, from_snapshot=request.from_snapshot, budget=budget, key=key)
        return pb.RetryJobResponse(job=wire.job_to_proto(view))

    async def PushJob(self, request: pb.PushJobRequest, context: Context) -> pb.PushJobResponse:
        branch = branch_from_proto(request.branch)
        view = await self._retries.push(request.job_id, branch=branch, key=idempotency_key(request))
        return pb.PushJobResponse(job=wire.job_to_proto(view))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        views = watch_job(self._reads, self._notifier, request.job_id)
        async for view in self._draining.stream(views, start=0, position_after=lambda _: 0):
            yield pb.WatchJobResponse(job=None if view is None else wire.job_to_proto(view))

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> AsyncIterator[pb.WatchJobsResponse]:
        filters = replace(wire.filter_from_proto(request.filter), visible=visible())
        updates = watch_jobs(self._reads, self._notifier, filters, request.from_position)
        async for update in self._draining.stream(
            updates, start=request.from_position, position_after=lambda update: update.position
        ):
            job = None if update.view is None else wire.job_to_proto(update.view, brief=True)
            yield pb.WatchJobsResponse(job=job, next_position=update.position)

    async def ListJobKinds(self, request: pb.ListJobKindsRequest, context: Context) -> pb.ListJobKindsResponse:
        page = page_from_proto(request)
        kinds = sorted(self._admission.kinds.values(), key=lambda kind: kind.name)
        after = [kind for kind in kinds if page.after is None or (kind.name,) > page.after]
        in_page, token = page.cut(after, lambda kind: (kind.name,))
        return pb.ListJobKindsResponse(kinds=map(wire.kind_to_proto, in_page), next_page_token=token)


def _gone(snapshot_id: str) -> NotFound:
    because = "it was deleted, or its time was over; `boatyard snapshots` lists those that are kept"
    return NotFound("snapshot", snapshot_id, because=because)
