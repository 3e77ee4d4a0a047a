"""What becomes of a workspace after its job: nothing that an agent left is lost before somebody could look at it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import job_pb2, runtime_pb2
from boatyard.workspace.v1 import workspace_pb2

from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.kit.repos import Repo
from tests.kit.services import Services, running_services

FAILED, SUCCEEDED = job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_SUCCEEDED


async def workspace_of(services: Services, job: job_pb2.Job) -> workspace_pb2.Workspace:
    wanted = runtime_pb2.ListWorkspacesRequest(job_id=job.job_id)
    (workspace,) = (await services.runtime.ListWorkspaces(wanted)).workspaces
    return workspace


def kept_for(workspace: workspace_pb2.Workspace) -> timedelta:
    return workspace.expire_time.ToDatetime(UTC) - datetime.now(UTC)


def told(job: job_pb2.Job, stage: str) -> str:
    (record,) = [record for record in job.timeline if record.name == stage]
    return record.message


@pytest.mark.slow
async def test_work_that_failed_is_kept_and_can_be_gone_on_with(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    failed = await services.run("echo half > half.txt; exit 3", repository_id=repository)
    assert (failed.state, failed.reason) == (FAILED, "AGENT_FAILED")
    snapshot_id = failed.output.snapshot_id
    assert snapshot_id == told(failed, "snapshot")
    assert told(failed, "cleanup") == "the workspace is kept for 72 h"
    assert timedelta(hours=71) < kept_for(await workspace_of(services, failed)) < timedelta(hours=73)

    again = await services.run("echo done >> half.txt", repository_id=repository, snapshot_id=snapshot_id)
    assert (again.state, again.spec.snapshot_id) == (SUCCEEDED, snapshot_id), again
    assert [change.path for change in again.output.files_changed] == ["half.txt"]
    assert remote.files(again.output.branch)["half.txt"] == "half\ndone"


_SECOND_TRY = "if test -e half.txt; then echo done >> half.txt; else echo half > half.txt; exit 3; fi"


@pytest.mark.slow
async def test_a_job_is_tried_again_from_what_it_left(services: Services, remote: Repo) -> None:
    """By its policy, and by a person."""
    repository = await services.repository(remote)
    policy = {"retry_on": ["AGENT_FAILED"], "retry_from": "RETRY_FROM_SNAPSHOT", "max_attempts": 2}
    by_itself = await services.run(_SECOND_TRY, repository_id=repository, policy=policy)
    assert (by_itself.state, len(by_itself.execution_ids)) == (SUCCEEDED, 2), by_itself
    assert remote.files(by_itself.output.branch)["half.txt"] == "half\ndone"

    failed = await services.run(_SECOND_TRY, repository_id=repository)
    assert failed.state == FAILED
    request = job_pb2.RetryJobRequest(request_id=f"again-{failed.job_id}", job_id=failed.job_id, from_snapshot=True)
    assert (await services.jobs.RetryJob(request)).job.state == job_pb2.Job.STATE_PENDING
    again = await services.ended(failed.job_id)
    assert (again.state, len(again.execution_ids)) == (SUCCEEDED, 2), again
    assert remote.files(again.output.branch)["half.txt"] == "half\ndone"


@pytest.mark.slow
async def test_nothing_to_keep_is_no_snapshot(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    failed = await services.run("exit 3", repository_id=repository)
    assert (failed.output.snapshot_id, told(failed, "snapshot")) == ("", "nothing had changed")
    without_repository = await services.run("exit 3")
    assert (without_repository.output.snapshot_id, told(without_repository, "snapshot")) == ("", "nothing had changed")
    fine = await services.run("echo new > new.txt", repository_id=repository)
    assert "snapshot" not in {record.name for record in fine.timeline}
    assert not fine.workspace_id, "its result was taken, and it is gone"


@pytest.mark.slow
async def test_a_snapshot_is_of_one_repository(services: Services, remote: Repo, tmp_path: Path) -> None:
    repository = await services.repository(remote)
    failed = await services.run("echo half > half.txt; exit 3", repository_id=repository)
    other = await services.repository(Repo.sample(tmp_path / "other").bare_clone(tmp_path / "other.git"))
    job = await services.run("true", repository_id=other, snapshot_id=failed.output.snapshot_id)
    assert (job.state, job.reason) == (FAILED, "SNAPSHOT_NOT_FOUND"), job
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await services.submit("true", repository_id=other, snapshot_id="no-such-snapshot")
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert "snapshot 'no-such-snapshot' does not exist" in service_error(missing.value).message
    for spec, field in (
        ({}, "spec.snapshot_id"),
        ({"repository_id": repository, "revision": b"main"}, "spec.snapshot_id"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services.submit("true", snapshot_id=failed.output.snapshot_id, **spec)
        assert field in service_error(caught.value).message


@pytest.mark.slow
async def test_what_cannot_be_kept_is_not_let_go(tmp_path: Path, remote: Repo) -> None:
    environment = {"BOATYARD_GATEWAY_NODE_PATIENCE_SECONDS": "1", "BOATYARD_GATEWAY_KEEP_FAILED_HOURS": "0"}
    async with running_services(tmp_path, **environment) as services:
        repository = await services.repository(remote)
        job = await services.submit("echo half > half.txt; sleep 1; exit 3", repository_id=repository)
        await services.until(job.job_id, lambda now: any(stage.name == "agent" for stage in now.timeline))
        services.end("git")
        ended = await services.ended(job.job_id)
        assert (ended.state, ended.reason) == (FAILED, "AGENT_FAILED"), "that it could not be kept is not why it failed"
        assert "could not be kept" in told(ended, "cleanup")
        assert kept_for(await workspace_of(services, ended)) > timedelta(days=30_000)


@pytest.mark.slow
async def test_what_a_workspace_takes_is_told(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    failed = await services.run("head -c 3000000 /dev/urandom > big; exit 3", repository_id=repository)
    usage = await services.runtime.ListWorkspaceUsage(runtime_pb2.ListWorkspaceUsageRequest(page_size=1000))
    (cell,) = usage.cells
    (of_it,) = [one for one in cell.workspaces if one.workspace_id == failed.workspace_id]
    assert 3_000_000 <= of_it.bytes <= cell.total_bytes
    assert cell.driver in {driver.name for driver in cell.drivers}


@pytest.mark.slow
async def test_a_job_that_is_to_begin_from_a_snapshot_that_is_gone_is_refused_by_its_name(
    services: Services, remote: Repo
) -> None:
    repository = await services.repository(remote)
    failed = await services.run("echo half > half.txt; exit 3", repository_id=repository)
    snapshot_id = failed.output.snapshot_id
    spec = job_pb2.JobSpec(prompt="Go on.", repository_id=repository, snapshot_id=snapshot_id)
    spec.agent.command.line = "true"
    created = job_pb2.CreateJobRequest(spec=spec, request_id=new_id("request"))
    first = (await services.jobs.CreateJob(created)).job
    await services.ended(first.job_id)
    await services.runtime.DeleteSnapshot(runtime_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id))

    again = job_pb2.RetryJobRequest(job_id=failed.job_id, from_snapshot=True)
    another = job_pb2.CreateJobRequest(spec=spec, request_id=new_id("request"))
    for call in (services.jobs.RetryJob(again), services.jobs.CreateJob(another)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        error = service_error(refused.value)
        assert (error.reason, snapshot_id in error.message) == ("SNAPSHOT_NOT_FOUND", True)
    assert (await services.job(failed.job_id)).state == FAILED, "it is as it was"
    assert (await services.jobs.CreateJob(created)).job.job_id == first.job_id, "the same request has the same answer"
    again.from_snapshot = False
    assert (await services.jobs.RetryJob(again)).job.state == job_pb2.Job.STATE_PENDING
    await services.ended(failed.job_id)
