"""The gateway and its nodes are killed, frozen and drained in the middle of things: nothing is lost or done twice."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from boatyard.gateway.v1 import job_pb2, runtime_pb2

from services.common.errors import ServiceError, Unavailable
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.execution.rundir.directory import RunDirectory
from tests.kit import processes
from tests.kit.layout import execution_runs
from tests.kit.repos import Repo
from tests.kit.services import Services, running_services

SUCCEEDED = job_pb2.Job.STATE_SUCCEEDED
# Counts its starts in the workspace, and writes a numbered line every 20 ms.
COUNTING = "echo started >> starts.txt; for i in $(seq {lines}); do echo line $i; sleep 0.02; done"


def lines(number: int) -> bytes:
    return b"".join(b"line %d\n" % count for count in range(1, number + 1))


@pytest_asyncio.fixture(scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    root = tmp_path_factory.mktemp("services")
    settings = {"GATEWAY_LEASE_SECONDS": "6", "GATEWAY_MAX_JOBS": "2", "EXECUTION_MAX_EXECUTIONS": "1"}
    async with running_services(root, **{f"BOATYARD_{name}": value for name, value in settings.items()}) as running:
        yield running


async def restart(services: Services, name: str, how: signal.Signals = signal.SIGKILL) -> None:
    services.end(name, how)
    services.start(name)
    await services.serving(name)


def began(name: str):
    return lambda job: any(stage.name == name for stage in job.timeline)


async def test_a_gateway_killed_in_mid_run_goes_on_with_the_running_agent(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    job = await services.submit(COUNTING.format(lines=150), repository_id=repository)
    await services.until(job.job_id, began("agent"))
    await restart(services, "gateway")
    ended = await services.ended(job.job_id)
    assert ended.state == SUCCEEDED, ended
    branch = ended.output.branch
    assert remote.files(branch)["starts.txt"] == "started"
    assert len(ended.execution_ids) == 1
    assert await services.output(job.execution_ids[0]) == lines(150)


@pytest.mark.slow
async def test_a_gateway_killed_at_any_moment(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    command = "echo started >> starts.txt; sleep 1"
    for stage in ("base", "start", "verify", "push"):
        job = await services.submit(command, repository_id=repository, policy={"verify_command": "test -e starts.txt"})
        await services.until(job.job_id, began(stage))
        await restart(services, "gateway")
        ended = await services.ended(job.job_id)
        assert ended.state == SUCCEEDED, (stage, ended)
        assert remote.files(ended.output.branch)["starts.txt"] == "started", stage
        assert ended.output.pushed
        assert [record.state for record in ended.timeline] == [job_pb2.StageRecord.STATE_DONE] * len(ended.timeline)
    wanted = runtime_pb2.ListWorkspacesRequest()
    assert not (await services.runtime.ListWorkspaces(wanted)).workspaces, "none was left behind by any of them"


@pytest.mark.slow
async def test_a_gateway_killed_while_it_lets_go_of_what_an_agent_left(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    for stage in ("take", "snapshot", "cleanup"):
        job = await services.submit("echo half > half.txt; exit 3", repository_id=repository)
        await services.until(job.job_id, began(stage))
        await restart(services, "gateway")
        ended = await services.ended(job.job_id)
        assert (ended.state, ended.reason) == (job_pb2.Job.STATE_FAILED, "AGENT_FAILED"), (stage, ended)
        assert [record.state for record in ended.timeline] == [job_pb2.StageRecord.STATE_DONE] * len(ended.timeline)
        workspaces = await services.runtime.ListWorkspaces(runtime_pb2.ListWorkspacesRequest(job_id=job.job_id))
        assert [workspace.HasField("expire_time") for workspace in workspaces.workspaces] == [True], stage
        assert ended.output.snapshot_id, stage
        await services.runtime.DeleteWorkspace(runtime_pb2.DeleteWorkspaceRequest(workspace_id=ended.workspace_id))


@pytest.mark.slow
async def test_a_viewer_sees_no_gap_when_the_execution_service_is_killed(services: Services, remote: Repo) -> None:
    job = await services.submit(COUNTING.format(lines=200), repository_id=await services.repository(remote))
    viewer = asyncio.create_task(services.output(job.execution_ids[0]))
    await services.until(job.job_id, began("agent"))
    await asyncio.sleep(0.3)  # somewhere in its midst; where does not matter
    await restart(services, "execution")
    assert await viewer == lines(200)
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.output.output_bytes) == (SUCCEEDED, len(lines(200)))


async def watched(services: Services, execution_id: str) -> tuple[ServiceError, int]:
    """Watch until the stream breaks off; return why, and the sequence that would have been next."""
    request, position = runtime_pb2.WatchExecutionRequest(execution_id=execution_id, follow=True), 1
    try:
        async with streaming(services.runtime.WatchExecution(request)) as messages:
            async for message in messages:
                assert [event.sequence for event in message.events[:1]] in ([], [position])
                position += len(message.events)
    except grpc.aio.AioRpcError as error:
        return service_error(error), position
    raise AssertionError("the stream came to its end")


@pytest.mark.slow
async def test_a_gateway_that_stops_leaves_its_agents_running(services: Services, remote: Repo) -> None:
    job = await services.submit(COUNTING.format(lines=200), repository_id=await services.repository(remote))
    await services.until(job.job_id, began("agent"))
    viewer = asyncio.create_task(watched(services, job.execution_ids[0]))
    await asyncio.sleep(0.2)  # so that it is in the midst; where does not matter
    assert await asyncio.to_thread(services.end, "gateway") == 0
    told, position = await viewer
    assert isinstance(told, Unavailable)
    assert (told.reason, told.resume_from) == ("DRAINING", position)
    assert processes.with_marker(job.execution_ids[0]), "the agent goes on"
    services.start("gateway")
    await services.serving("gateway")
    assert (await services.ended(job.job_id)).state == SUCCEEDED
    assert await services.output(job.execution_ids[0]) == lines(200)


@pytest.mark.slow
async def test_a_cancel_while_the_gateway_is_away_counts(services: Services, remote: Repo) -> None:
    job = await services.submit("sleep 300", repository_id=await services.repository(remote))
    await services.until(job.job_id, began("agent"))
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    await restart(services, "gateway")
    ended = await services.ended(job.job_id)
    assert ended.state == job_pb2.Job.STATE_CANCELLED
    assert processes.with_marker(job.job_id) == []


@pytest.mark.slow
async def test_nodes_that_are_away_for_a_while(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    for name in ("workspace", "git", "execution"):
        services.end(name, signal.SIGKILL)
    job = await services.submit("touch new", repository_id=repository, policy={"verify_command": "test -e new"})
    await services.until(job.job_id, began("base"))
    for name in ("workspace", "git", "execution"):
        services.start(name)
    ended = await services.ended(job.job_id)
    assert ended.state == SUCCEEDED, ended


@pytest.mark.slow
async def test_no_more_jobs_at_once_than_the_cell_has_room_for(services: Services) -> None:
    """The gateway takes two, and the execution service one of these: the other waits for it."""
    jobs = [await services.submit("sleep 0.5") for _ in range(5)]
    most = 0
    while True:
        listed = (await services.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=5))).jobs
        assert {job.job_id for job in listed} == {job.job_id for job in jobs}
        running = [job for job in listed if job.state == job_pb2.Job.STATE_RUNNING]
        most = max(most, len(running))
        if all(job.state == SUCCEEDED for job in listed):
            break
        await asyncio.sleep(0.02)
    assert most == 2


@pytest.mark.slow
async def test_a_check_whose_runner_is_killed_is_run_again(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    policy = {"verify_command": "sleep 2", "retention": "RETENTION_REMOVE"}
    job = await services.submit("echo new > new.txt", repository_id=repository, policy=policy)
    check = RunDirectory(execution_runs(services.home) / f"{job.execution_ids[0]}-verify")
    async with asyncio.timeout(60):
        while check.started_time_ns() is None:
            await asyncio.sleep(0.02)
    holder = check.holder()
    assert holder is not None
    os.kill(holder, signal.SIGKILL)

    ended = await services.ended(job.job_id)
    assert ended.state == SUCCEEDED, ended
    assert ended.output.verification.execution_id == f"{job.execution_ids[0]}-verify-try-2"
