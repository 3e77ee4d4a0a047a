"""The rows of the older systems about workspaces, as docs/from-older-systems.md has them."""

from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import catalog_pb2, runtime_pb2
from boatyard.workspace.v1 import workspace_pb2
from google.protobuf.duration_pb2 import Duration

from services.common.errors import NotFound, ServiceError
from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.kit.repos import Repo
from tests.kit.services import Services

STATES = workspace_pb2.Workspace


async def refusal(call) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return service_error(caught.value)


async def workspace_of(services: Services, workspace_id: str) -> workspace_pb2.Workspace:
    request = runtime_pb2.GetWorkspaceRequest(workspace_id=workspace_id)
    return (await services.runtime.GetWorkspace(request)).workspace


async def listed(services: Services, **wanted: object) -> list[str]:
    answer = await services.runtime.ListWorkspaces(runtime_pb2.ListWorkspacesRequest(**wanted))
    return [workspace.workspace_id for workspace in answer.workspaces]


async def test_older_systems_404_for_a_workspace_that_never_was(services: Services) -> None:
    workspace_id = new_id("ws")
    for call in (
        services.runtime.GetWorkspace(runtime_pb2.GetWorkspaceRequest(workspace_id=workspace_id)),
        services.runtime.DeleteWorkspace(runtime_pb2.DeleteWorkspaceRequest(workspace_id=workspace_id)),
    ):
        refused = await refusal(call)
        assert isinstance(refused, NotFound)
        assert (refused.reason, refused.resource_name) == ("WORKSPACE_NOT_FOUND", workspace_id)


@pytest.mark.slow
async def test_older_systems_fields_of_a_workspace_and_its_end(services: Services, remote: Repo) -> None:
    """worker, work item, repository, path, branch, status, created, completed and cleanup times; then its removal."""
    repository_id = await services.repository(remote)
    agent = {"command": {"line": "echo half > half.txt; exit 3"}}
    worker = catalog_pb2.Worker(display_name="Ada", agent=agent)
    worker_id = (await services.catalog.CreateWorker(catalog_pb2.CreateWorkerRequest(worker=worker))).worker.worker_id
    item = catalog_pb2.WorkItem(title="A berth", repository_id=repository_id)
    made = await services.catalog.CreateWorkItem(catalog_pb2.CreateWorkItemRequest(work_item=item))
    item_id = made.work_item.work_item_id

    request = runtime_pb2.ExecuteRequest(worker_id=worker_id, work_item_id=item_id, prompt="Do it.")
    job = await services.ended((await services.runtime.Execute(request)).job_id)
    workspace = await workspace_of(services, job.workspace_id)
    labels = workspace.labels
    assert (labels.worker_id, labels.work_item_id, labels.repository_id) == (worker_id, item_id, repository_id)
    assert labels.branch == job.output.branch
    assert (Path(workspace.path) / "half.txt").read_text() == "half\n"
    assert workspace.state == STATES.STATE_ERROR
    times = (workspace.create_time, workspace.complete_time, workspace.expire_time)
    assert times == tuple(sorted(times, key=lambda time: time.ToNanoseconds()))
    assert all(time.seconds for time in times)

    assert await listed(services, worker_id=worker_id) == [job.workspace_id]
    assert await listed(services, work_item_id=item_id) == [job.workspace_id]
    assert await listed(services, work_item_id=item_id, states=[STATES.STATE_ACTIVE]) == []
    assert await listed(services, worker_id=new_id("worker")) == []

    remove = runtime_pb2.DeleteWorkspaceRequest(workspace_id=job.workspace_id)
    for _ in range(2):  # the second time it is gone already
        await services.runtime.DeleteWorkspace(remove)
    refused = await refusal(
        services.runtime.GetWorkspace(runtime_pb2.GetWorkspaceRequest(workspace_id=job.workspace_id))
    )
    assert refused.reason == "WORKSPACE_NOT_FOUND"


@pytest.mark.slow
async def test_older_systems_stale_workspaces_are_swept(services: Services) -> None:
    async def project_with_a_workspace(command: str) -> tuple[str, str]:
        project_id = new_id("project")
        project = catalog_pb2.Project(project_id=project_id)
        await services.catalog.CreateProject(catalog_pb2.CreateProjectRequest(project=project))
        job = await services.submit(command, project_id=project_id)
        if command != "sleep 300":
            return project_id, (await services.ended(job.job_id)).workspace_id
        running = await services.until(job.job_id, lambda now: any(stage.name == "agent" for stage in now.timeline))
        return project_id, running.workspace_id

    (old, old_workspace), (other, other_workspace) = [await project_with_a_workspace("exit 3") for _ in range(2)]
    busy, busy_workspace = await project_with_a_workspace("sleep 300")

    async def sweep(project_id: str, seconds: int) -> list[str]:
        request = runtime_pb2.SweepWorkspacesRequest(max_age=Duration(seconds=seconds), project_id=project_id)
        answer = await services.runtime.SweepWorkspaces(request)
        assert not answer.unreachable_cell_ids
        return list(answer.workspace_ids)

    assert await sweep(old, 86400) == []
    assert await sweep(old, 0) == [old_workspace]
    assert await listed(services, project_id=old) == []
    assert await listed(services, project_id=other) == [other_workspace], "it is another project's"
    assert await sweep(busy, 0) == [], "an agent is in it"
    assert await listed(services, project_id=busy) == [busy_workspace]
