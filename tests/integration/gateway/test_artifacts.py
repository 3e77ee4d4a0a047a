"""The files that a policy names are kept of a job, however it ends, and are read by the public API."""

import pytest
from boatyard.gateway.v1 import job_pb2, runtime_pb2
from boatyard.git.v1.git_pb2 import OmittedArtifact

from services.common.errors import FailedPrecondition, NotFound
from services.common.rpc.streaming import streaming
from tests.integration.gateway.test_life_of_a_job import CANCELLED, FAILED, SUCCEEDED
from tests.kit.catalog import refusal
from tests.kit.repos import Repo
from tests.kit.services import Services


async def artifacts(services: Services, execution_id: str) -> dict[str, int]:
    request = runtime_pb2.ListArtifactsRequest(execution_id=execution_id)
    return {each.name: each.size_bytes for each in (await services.runtime.ListArtifacts(request)).artifacts}


async def read(services: Services, execution_id: str, name: str, **part: int) -> bytes:
    request = runtime_pb2.ReadArtifactRequest(execution_id=execution_id, name=name, **part)
    async with streaming(services.runtime.ReadArtifact(request)) as messages:
        return b"".join([message.data async for message in messages])


async def test_they_are_kept_with_and_without_a_repository_and_in_the_output(services: Services, remote: Repo) -> None:
    command = "mkdir -p dist; printf wheel > dist/a.whl; ln -s /etc/passwd dist/link; echo dist > .gitignore"
    policy = {"artifacts": ["dist", "*.log"]}
    for repository_id in ("", await services.repository(remote)):
        job = await services.run(command, repository_id=repository_id, policy=policy)
        (execution_id,) = job.execution_ids
        output = job.output
        assert (job.state, output.total_artifacts, output.total_artifact_bytes) == (SUCCEEDED, 1, 5)
        assert [each.name for each in output.artifacts] == ["dist/a.whl"]
        assert {each.name: each.reason for each in output.omitted_artifacts} == {
            "*.log": OmittedArtifact.REASON_NO_SUCH_FILE,
            "dist/link": OmittedArtifact.REASON_NOT_A_FILE,
        }
        (told,) = [stage.message for stage in job.timeline if stage.name == "artifacts"]
        stages = [stage.name for stage in job.timeline]
        assert stages.index("take") < stages.index("artifacts")  # which cannot cost the result
        assert told == "1 kept, 5 bytes; not kept: *.log (no such file), dist/link (not a file)"
        assert await artifacts(services, execution_id) == {"dist/a.whl": 5}
        assert await read(services, execution_id, "dist/a.whl") == b"wheel"
        assert await read(services, execution_id, "dist/a.whl", offset=1, max_bytes=2) == b"he"
        refused = await refusal(read(services, execution_id, "dist/link"), NotFound)
        assert refused.reason == "ARTIFACT_NOT_FOUND"


@pytest.mark.slow
async def test_what_failed_and_was_cancelled_has_them_too_in_each_attempt(services: Services) -> None:
    policy = {"artifacts": ["log"], "retry_on": ["AGENT_FAILED"], "max_attempts": 2}
    failed = await services.run("echo $BOATYARD_EXECUTION_ID > log; exit 3", policy=policy)
    assert (failed.state, len(failed.execution_ids)) == (FAILED, 2)
    for execution_id in failed.execution_ids:
        assert await read(services, execution_id, "log") == f"{execution_id}\n".encode()
    running = await services.submit("echo begun > log; cat; echo; sleep 600", policy=policy)
    execution_id = running.execution_ids[0]
    async with streaming(
        services.runtime.WatchExecution(runtime_pb2.WatchExecutionRequest(execution_id=execution_id, follow=True))
    ) as messages:
        async for message in messages:
            if any(event.HasField("output") for event in message.events):
                break
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=running.job_id))
    assert (await services.ended(running.job_id)).state == CANCELLED
    assert await read(services, execution_id, "log") == b"begun\n"


@pytest.mark.slow
async def test_who_asks_for_none_has_none(services: Services) -> None:
    job = await services.run("touch dist")
    assert "artifacts" not in [stage.name for stage in job.timeline]
    assert await artifacts(services, job.execution_ids[0]) == {}
    assert (await refusal(artifacts(services, "exec-none"), NotFound)).reason == "EXECUTION_NOT_FOUND"


@pytest.mark.slow
async def test_what_has_expired_is_said_to_have(services: Services) -> None:
    job = await services.run("echo x > log", policy={"artifacts": ["log"]})
    (execution_id,) = job.execution_ids
    kept = services.home.root / "git" / "artifacts" / execution_id
    kept.rename(kept.with_name("gone"))
    for call in (artifacts(services, execution_id), read(services, execution_id, "log")):
        assert (await refusal(call, FailedPrecondition)).reason == "ARTIFACTS_EXPIRED"
