"""What projects want of all their jobs, on real node services: checks that run, and results that wait for a person."""

from collections.abc import AsyncIterator

import pytest
from boatyard.gateway.v1 import catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from services.common.rpc.streaming import streaming
from tests.kit.repos import Repo
from tests.kit.services import Services

SUCCEEDED, FAILED = job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED
WORKFLOW = "mkdir -p .github/workflows && echo on: push > .github/workflows/ci.yml"


async def set_floor(services: Services, **floor: object) -> None:
    project = catalog_pb2.Project(project_id="default", floor=floor)  # type: ignore[arg-type]
    mask = FieldMask(paths=["floor"])
    await services.catalog.UpdateProject(catalog_pb2.UpdateProjectRequest(project=project, update_mask=mask))


@pytest.fixture
async def floored(services: Services) -> AsyncIterator[Services]:
    """Services whose default project has a floor until the test ends."""
    await set_floor(services, verify_command="test ! -e bad", protected_paths=[".github/workflows/**"])
    yield services
    await set_floor(services)


async def approved(services: Services, asked: checkpoint_pb2.Checkpoint) -> job_pb2.Job:
    await services.checkpoints.ApproveCheckpoint(
        checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    )
    return await services.ended(asked.job_id)


async def test_a_change_of_a_protected_path_is_pushed_after_an_approval(floored: Services, remote: Repo) -> None:
    repository = await floored.repository(remote)
    job = await floored.submit(WORKFLOW, repository_id=repository)
    asked = await floored.asked(job.job_id)
    assert asked.name == "push"
    assert asked.question == "May the result be pushed? It changes protected paths: .github/workflows/ci.yml."
    assert remote.git("branch", "--list", "boatyard/*") == ""
    ended = await approved(floored, asked)
    assert (ended.state, ended.output.pushed) == (SUCCEEDED, True)
    assert "protected" in {stage.name for stage in ended.timeline}
    assert [floor.set_by for floor in ended.floors] == ["project/default"]
    assert [*ended.submitters] == ["admin"]


async def test_who_types_at_an_agents_terminal_is_named_and_who_looks_is_not(services: Services) -> None:
    line = 'echo ready; read -r line; echo "got $line"'
    job = await services.submit("", agent={"command": {"line": line, "terminal": True}})
    execution_id = job.execution_ids[0]
    watching = runtime_pb2.WatchExecutionRequest(execution_id=execution_id, follow=True)
    async with streaming(services.runtime.WatchExecution(watching)) as updates:
        async for update in updates:
            if any(b"ready" in event.output.data for event in update.events):
                break
    for message, named in (({"size": {"rows": 9, "columns": 9}}, []), ({"input": b"go\r"}, ["admin"])):
        requests = [runtime_pb2.AttachExecutionRequest(execution_id=execution_id)]
        requests.append(runtime_pb2.AttachExecutionRequest(**message))
        async with streaming(services.runtime.AttachExecution(iter(requests))) as messages:
            async for _ in messages:
                pass
        assert [*(await services.job(job.job_id)).steered_by] == named
    assert (await services.ended(job.job_id)).state == SUCCEEDED


@pytest.mark.slow
async def test_each_round_is_looked_at_anew(floored: Services, remote: Repo) -> None:
    repository = await floored.repository(remote)
    job = await floored.submit(
        f"rm -rf .github && test -e out || {{ touch out; {WORKFLOW}; }}", repository_id=repository
    )
    asked = await floored.asked(job.job_id)
    changes = checkpoint_pb2.RequestChangesRequest(checkpoint_id=asked.checkpoint_id, comment="without that")
    await floored.checkpoints.RequestChanges(changes)
    ended = await floored.ended(job.job_id)
    assert (ended.state, ended.output.pushed, len(ended.checkpoints)) == (SUCCEEDED, True, 1)


@pytest.mark.slow
async def test_other_changes_are_pushed_and_checked_as_the_floor_wants(floored: Services, remote: Repo) -> None:
    repository = await floored.repository(remote)
    job = await floored.run("touch good", repository_id=repository, policy={"verify_command": "true"})
    assert (job.state, job.output.pushed, job.output.verification.passed) == (SUCCEEDED, True, True)
    job = await floored.run("touch bad", repository_id=repository, policy={"verify_command": "true || true"})
    assert (job.state, job.reason, job.output.pushed) == (FAILED, "VERIFY_FAILED", False)
    assert job.message.startswith("the check, with that of the floor of project/default, did not pass: ")
    job = await floored.run("touch bad", repository_id=repository)
    assert job.message.startswith("the check of the floor of project/default did not pass: ")


@pytest.mark.slow
async def test_what_a_snapshot_holds_is_asked_about_and_nothing_else(floored: Services, remote: Repo) -> None:
    """Else one job would leave the change in a snapshot, and the next one push it."""
    repository = await floored.repository(remote)
    first = await floored.run(f"{WORKFLOW}; exit 1", repository_id=repository)
    assert (first.state, bool(first.output.snapshot_id)) == (FAILED, True)
    second = await floored.submit("touch mine", repository_id=repository, snapshot_id=first.output.snapshot_id)
    asked = await floored.asked(second.job_id)
    assert asked.question == "May the result be pushed? It changes protected paths: .github/workflows/ci.yml."
    first = await floored.run("touch other; exit 1", repository_id=repository)
    second = await floored.run("touch mine", repository_id=repository, snapshot_id=first.output.snapshot_id)
    assert (second.state, [*second.checkpoints]) == (SUCCEEDED, [])
    assert [change.path for change in second.output.files_changed] == ["mine", "other"]
