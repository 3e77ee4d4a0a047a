"""A project whose jobs may take up only what is to do: any other work item is refused, whichever way a job begins."""

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.gateway.v1 import catalog_pb2 as pb
from boatyard.gateway.v1 import job_pb2

from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from tests.kit.catalog import Stubs, refusal, serving_catalog


@pytest_asyncio.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with serving_catalog(tmp_path) as stubs:
        yield stubs


async def item_in(stubs: Stubs, state: str, *, todo_only: bool) -> tuple[str, str]:
    """Make a project, and a work item of it in a state; return the ids of both."""
    project = pb.Project(project_id=new_id("project"), todo_only=todo_only)
    project = (await stubs.catalog.CreateProject(pb.CreateProjectRequest(project=project))).project
    assert project.todo_only == todo_only
    worker = pb.Worker(project_id=project.project_id, agent={"command": {"line": "true"}})
    worker = (await stubs.catalog.CreateWorker(pb.CreateWorkerRequest(worker=worker))).worker
    item = pb.WorkItem(
        work_item_id=new_id("item"), title="Mend it", project_id=project.project_id, worker_id=worker.worker_id
    )
    item = (await stubs.catalog.CreateWorkItem(pb.CreateWorkItemRequest(work_item=item))).work_item
    if state != "TODO":
        await move(stubs, item.work_item_id, state)
    return project.project_id, item.work_item_id


async def move(stubs: Stubs, work_item_id: str, state: str) -> pb.WorkItem:
    request = pb.MoveWorkItemRequest(work_item_id=work_item_id, state=f"STATE_{state}")
    return (await stubs.catalog.MoveWorkItem(request)).work_item


async def job_for(stubs: Stubs, project_id: str, work_item_id: str) -> job_pb2.Job:
    spec = job_pb2.JobSpec(
        prompt="Do it.", project_id=project_id, work_item_id=work_item_id, agent={"command": {"line": "true"}}
    )
    return (await stubs.jobs.CreateJob(job_pb2.CreateJobRequest(spec=spec))).job


async def check_refused(call: Awaitable[object]) -> None:
    error = await refusal(call, FailedPrecondition)
    assert error.reason == "WORK_ITEM_STATE"
    assert "is DONE, and its project takes up only what is TODO" in error.message


@pytest.mark.parametrize("how", ["job", "move"])
async def test_what_is_done_is_taken_up_by_nobody_where_the_project_says_so(stubs: Stubs, how: str) -> None:
    project_id, item_id = await item_in(stubs, "DONE", todo_only=True)
    begin = job_for(stubs, project_id, item_id) if how == "job" else move(stubs, item_id, "IN_PROGRESS")
    await check_refused(begin)
    shown = await stubs.catalog.GetWorkItem(pb.GetWorkItemRequest(work_item_id=item_id))
    assert shown.work_item.state == pb.WorkItem.STATE_DONE, "it is as it was"
    await move(stubs, item_id, "TODO")
    assert (await job_for(stubs, project_id, item_id)).state == job_pb2.Job.STATE_PENDING


async def test_a_retry_takes_up_only_what_is_to_do(stubs: Stubs) -> None:
    project_id, item_id = await item_in(stubs, "TODO", todo_only=True)
    job = await job_for(stubs, project_id, item_id)
    await stubs.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    await move(stubs, item_id, "DONE")
    await check_refused(stubs.jobs.RetryJob(job_pb2.RetryJobRequest(job_id=job.job_id)))
    await move(stubs, item_id, "TODO")
    await stubs.jobs.RetryJob(job_pb2.RetryJobRequest(job_id=job.job_id))


async def test_what_a_job_works_on_is_busy_first(stubs: Stubs) -> None:
    project_id, item_id = await item_in(stubs, "TODO", todo_only=True)
    await job_for(stubs, project_id, item_id)
    error = await refusal(job_for(stubs, project_id, item_id), FailedPrecondition)
    assert error.reason == "WORK_ITEM_BUSY"


async def test_elsewhere_any_work_item_is_taken_up(stubs: Stubs) -> None:
    project_id, item_id = await item_in(stubs, "DONE", todo_only=False)
    assert (await job_for(stubs, project_id, item_id)).state == job_pb2.Job.STATE_PENDING
    change = pb.UpdateProjectRequest(project={"project_id": project_id, "todo_only": True})
    change.update_mask.paths.append("todo_only")
    assert (await stubs.catalog.UpdateProject(change)).project.todo_only
