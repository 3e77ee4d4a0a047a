"""The RPCs of JobService: from the wire to the store and back."""

from collections.abc import AsyncIterator
from typing import Any

from boatyard.gateway.v1 import job_pb2 as pb
from boatyard.gateway.v1.job_pb2_grpc import JobServiceServicer
from grpc import aio

from services.common.rpc.draining import Draining
from services.gateway.jobs import wire
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.store import JobStore, job_key
from services.gateway.jobs.watching import watch_job

Context = aio.ServicerContext[Any, Any]


class JobServicer(JobServiceServicer):
    """Serves boatyard.gateway.v1.JobService."""

    def __init__(self, admission: Admission, store: JobStore, changes: Changes, draining: Draining) -> None:
        self._admission = admission
        self._store = store
        self._changes = changes
        self._draining = draining

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.CreateJobResponse:
        """See the contract."""
        view = await self._admission.admit(*wire.new_job(request))
        return pb.CreateJobResponse(job=wire.job(view))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """See the contract."""
        return pb.GetJobResponse(job=wire.job(await self._store.job(wire.job_id(request.job_id))))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """See the contract."""
        which, page = wire.wanted(request)
        views, page = await self._store.jobs(which, page)
        jobs, token = wire.fitted(views, page, lambda view: wire.job(view, brief=True), job_key)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        """See the contract."""
        return pb.CancelJobResponse(job=wire.job(await self._store.cancel_job(wire.job_id(request.job_id))))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        """See the contract."""
        views = watch_job(self._store, self._changes, wire.job_id(request.job_id))
        async for view in self._draining.stream(views, start=0, position_after=lambda _: 0):
            yield pb.WatchJobResponse(job=None if view is None else wire.job(view))
