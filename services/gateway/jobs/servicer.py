"""The RPCs of JobService: between the wire and the store."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from boatyard.gateway.v1 import job_pb2 as pb
from boatyard.gateway.v1.job_pb2_grpc import JobServiceServicer
from grpc import aio

from services.common.rpc.draining import Draining
from services.gateway.jobs import submission_wire, wire
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.store import JobStore, job_key
from services.gateway.jobs.watching import watch_job, watch_jobs
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.scope import visible
from services.gateway.wire.lists import fitted
from services.gateway.wire.validation import Validator, required_id

Context = aio.ServicerContext[Any, Any]


class JobServicer(JobServiceServicer):
    """Serves boatyard.gateway.v1.JobService."""

    def __init__(
        self, admission: Admission, store: JobStore, retries: Retries, notifier: JobNotifier, draining: Draining
    ) -> None:
        self._admission = admission
        self._retries = retries
        self._store = store
        self._notifier = notifier
        self._draining = draining

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.CreateJobResponse:
        view = await self._admission.admit(*submission_wire.submission_from_proto(request, self._admission.kinds))
        return pb.CreateJobResponse(job=wire.job_to_proto(view))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=wire.job_to_proto(await self._store.job(required_id("job_id", request.job_id))))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        filters, page = wire.list_jobs_from_proto(request)
        views, page = await self._store.jobs(replace(filters, visible=visible()), page)
        jobs, token = fitted(views, page, lambda view: wire.job_to_proto(view, brief=True), job_key)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(
            job=wire.job_to_proto(await self._store.cancel_job(required_id("job_id", request.job_id)))
        )

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        job_id, key = wire.retry_from_proto(request)
        view = await self._retries.retry(job_id, from_snapshot=request.from_snapshot, key=key)
        return pb.RetryJobResponse(job=wire.job_to_proto(view))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        views = watch_job(self._store, self._notifier, required_id("job_id", request.job_id))
        async for view in self._draining.stream(views, start=0, position_after=lambda _: 0):
            yield pb.WatchJobResponse(job=None if view is None else wire.job_to_proto(view))

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> AsyncIterator[pb.WatchJobsResponse]:
        filters, position = wire.watch_jobs_from_proto(request)
        updates = watch_jobs(self._store, self._notifier, replace(filters, visible=visible()), position)
        async for update in self._draining.stream(
            updates, start=position, position_after=lambda update: update.position
        ):
            job = None if update.view is None else wire.job_to_proto(update.view, brief=True)
            yield pb.WatchJobsResponse(job=job, next_position=update.position)

    async def ListJobKinds(self, request: pb.ListJobKindsRequest, context: Context) -> pb.ListJobKindsResponse:
        with Validator() as check:
            page = check.page(request, request.page_size, request.page_token)
        kinds = sorted(self._admission.kinds.values(), key=lambda kind: kind.name)
        after = [kind for kind in kinds if page.after is None or (kind.name,) > page.after]
        in_page, token = page.cut(after, lambda kind: (kind.name,))
        return pb.ListJobKindsResponse(kinds=map(wire.kind_to_proto, in_page), next_page_token=token)
