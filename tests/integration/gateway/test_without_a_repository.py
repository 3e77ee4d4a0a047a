"""A job without a repository has a result as any other, by the public API, on real node services."""

import pytest
from boatyard.gateway.v1 import catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2

from services.common.errors import Invalid
from services.common.rpc.streaming import streaming
from tests.integration.gateway.test_life_of_a_job import FAILED, SUCCEEDED
from tests.kit.catalog import refusal
from tests.kit.services import Services


async def diff(services: Services, **what: str) -> bytes:
    async with streaming(services.runtime.ReadDiff(runtime_pb2.ReadDiffRequest(**what))) as messages:
        return b"".join([message.data async for message in messages])


async def test_it_begins_in_an_empty_directory_and_its_files_are_the_result(services: Services) -> None:
    job = await services.run('[ -z "$(ls -A)" ] && echo made > file', policy={"verify_command": "grep made file"})
    output = job.output
    assert (job.state, output.verification.passed, output.pushed, output.branch) == (SUCCEEDED, True, False, "")
    assert [change.path for change in output.files_changed] == ["file"]
    assert b"+made" in await diff(services, execution_id=job.execution_ids[0])


async def test_a_check_that_fails_fails_it_and_what_it_made_is_kept(services: Services) -> None:
    job = await services.run("touch file", policy={"verify_command": "test ! -e file"})
    assert (job.state, job.reason) == (FAILED, "VERIFY_FAILED")
    assert job.output.snapshot_id
    assert b"file" in await diff(services, snapshot_id=job.output.snapshot_id)


async def test_one_that_makes_nothing_is_checked_too(services: Services) -> None:
    job = await services.run("true", policy={"verify_command": "test -e file"})
    assert (job.state, job.reason, job.output.total_files_changed) == (FAILED, "VERIFY_FAILED", 0)


@pytest.mark.slow
async def test_a_next_attempt_goes_on_from_its_snapshot(services: Services) -> None:
    policy = {"retry_on": ["AGENT_FAILED"], "retry_from": "RETRY_FROM_SNAPSHOT", "max_attempts": 2}
    job = await services.run("test -e first && touch second || { touch first; exit 1; }", policy=policy)
    assert (job.state, len(job.execution_ids)) == (SUCCEEDED, 2)


@pytest.mark.slow
async def test_a_person_is_asked_before_its_result_goes_on(services: Services) -> None:
    job = await services.submit("touch file", policy={"checkpoints": {"before": ["push"]}})
    asked = await services.asked(job.job_id)
    assert asked.question == "May the result be handed over?"
    await services.checkpoints.ApproveCheckpoint(
        checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    )
    assert (await services.ended(job.job_id)).state == job_pb2.Job.STATE_SUCCEEDED


async def test_no_repository_has_an_id_of_such_results(services: Services) -> None:
    wanted = catalog_pb2.Repository(repository_id="no-remote-a", url="https://example.com/a.git")
    call = services.catalog.CreateRepository(catalog_pb2.CreateRepositoryRequest(repository=wanted))
    assert "no-remote-" in (await refusal(call, Invalid)).message
