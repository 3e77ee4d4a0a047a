"""A push that does not reach its remote is made again, alone: the agent has worked once, and nothing is doubled."""

from collections.abc import Iterator

import grpc
import pytest
from boatyard.gateway.v1 import catalog_pb2, checkpoint_pb2, job_pb2, policy_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from services.common.rpc.status import service_error
from tests.kit.githttp import Fault, GitServer, git_server
from tests.kit.repos import Repo
from tests.kit.services import Services

TOKEN = "canary-token"
READ, PUSH = "GET /repo.git/info/refs?service=git-upload-pack", "POST /repo.git/git-receive-pack"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    root = tmp_path_factory.mktemp("served")
    Repo.sample(root / "work").bare_clone(root / "repo.git")
    with git_server(root, TOKEN) as server:
        server.records_processes = False
        yield server


async def add(services: Services, server: GitServer, token: str = TOKEN) -> str:
    repository = catalog_pb2.Repository(url=server.url("repo.git"), token=token)
    known = await services.catalog.ListRepositories(catalog_pb2.ListRepositoriesRequest(url=repository.url))
    for one in known.repositories:
        repository.repository_id = one.repository_id
        mask = FieldMask(paths=["token"])
        await services.catalog.UpdateRepository(
            catalog_pb2.UpdateRepositoryRequest(repository=repository, update_mask=mask)
        )
        return one.repository_id
    request = catalog_pb2.CreateRepositoryRequest(repository=repository)
    return (await services.catalog.CreateRepository(request)).repository.repository_id


@pytest.mark.parametrize("does", [503, "drop"])
async def test_a_push_is_tried_again_without_the_agent(services: Services, server: GitServer, does: int | str) -> None:
    server.faults.append(Fault(PUSH, does, times=1))
    job = await services.run("echo worked; touch new", repository_id=await add(services, server))
    assert (job.state, job.reason) == (job_pb2.Job.STATE_SUCCEEDED, ""), job.message
    assert len(job.execution_ids) == 1
    assert job.output.pushed
    assert Repo(server.root / "repo.git").head(f"boatyard/{job.job_id}") == job.output.commit_id


@pytest.mark.parametrize(
    ("does", "reason"), [(401, "REMOTE_ACCESS_DENIED"), ("https://git.example{path}", "REMOTE_MOVED")]
)
async def test_what_no_second_try_mends_is_tried_once(
    services: Services, server: GitServer, does: int | str, reason: str
) -> None:
    server.faults.append(Fault(READ, does))
    job = await services.run("touch new", repository_id=await add(services, server))
    assert (job.reason, len(job.execution_ids)) == (reason, 1), job.message


async def test_a_token_that_may_not_push_is_found_before_the_agent_works(services: Services, server: GitServer) -> None:
    server.faults.append(Fault("service=git-receive-pack", 403))
    job = await services.run("echo worked; touch new", repository_id=await add(services, server))
    assert job.reason == "REMOTE_ACCESS_DENIED"
    assert "start" not in {stage.name for stage in job.timeline}


async def test_a_kept_result_is_pushed_without_its_agent(services: Services, remote: Repo) -> None:
    remote.git("config", "transfer.hideRefs", "refs/heads/boatyard")
    policy = {"verify_command": "test -e new"}
    job = await services.run("echo worked; touch new", repository_id=await services.repository(remote), policy=policy)
    assert (job.reason, job.output.pushed) == ("PUSH_REJECTED", False)
    request = job_pb2.PushJobRequest(job_id=job.job_id)
    await services.jobs.PushJob(request)
    refused = await services.ended(job.job_id)
    assert (refused.reason, refused.output.commit_id) == ("PUSH_REJECTED", job.output.commit_id)
    remote.git("config", "--unset", "transfer.hideRefs")
    away = remote.path.rename(remote.path.with_name("away"))
    await services.jobs.PushJob(request)
    assert (await services.ended(job.job_id)).reason == "REMOTE_NOT_FOUND"
    away.rename(remote.path)
    await services.jobs.PushJob(request)
    pushed = await services.ended(job.job_id)
    assert (pushed.state, pushed.reason) == (job_pb2.Job.STATE_SUCCEEDED, ""), pushed.message
    assert remote.head(f"boatyard/{job.job_id}") == job.output.commit_id == pushed.output.commit_id
    assert pushed.output.pushed
    assert [file.path for file in pushed.output.files_changed] == ["new"]
    assert pushed.output.verification.passed
    assert [stage.name for stage in pushed.timeline].count("start") <= 1


async def test_a_push_does_not_make_later_attempts_publish(services: Services, remote: Repo) -> None:
    policy = {"publish": "PUBLISH_NONE", "verify_command": "test -e other"}
    job = await services.run("touch new", repository_id=await services.repository(remote), policy=policy)
    await services.jobs.PushJob(job_pb2.PushJobRequest(job_id=job.job_id))
    pushed = await services.ended(job.job_id)
    assert (pushed.reason, pushed.spec.policy.publish) == ("VERIFY_FAILED", policy_pb2.Policy.PUBLISH_NONE)


async def test_a_kept_result_without_a_repository_is_checked_again_without_its_agent(services: Services) -> None:
    job = await services.run("touch new", policy={"verify_command": "exit 1"})
    assert job.reason == "VERIFY_FAILED"
    await services.jobs.PushJob(job_pb2.PushJobRequest(job_id=job.job_id))
    again = await services.ended(job.job_id)
    assert (again.reason, again.output.commit_id) == ("VERIFY_FAILED", job.output.commit_id), again.message
    assert len(again.execution_ids) == 2
    assert [stage.name for stage in again.timeline].count("start") == 1
    assert [stage.name for stage in again.timeline].count("verify") == 2
    await services.jobs.RetryJob(job_pb2.RetryJobRequest(job_id=job.job_id, from_snapshot=True))  # as its message says
    continued = await services.ended(job.job_id)
    assert [stage.name for stage in continued.timeline].count("start") == 2


async def test_a_job_without_a_result_has_nothing_to_push(services: Services, remote: Repo) -> None:
    job = await services.run("exit 3", repository_id=await services.repository(remote))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await services.jobs.PushJob(job_pb2.PushJobRequest(job_id=job.job_id))
    assert service_error(failure.value).reason == "NO_RESULT"


async def test_a_person_is_asked_before_a_kept_result_is_pushed(services: Services, remote: Repo) -> None:
    policy = {"checkpoints": {"before": ["push"]}}
    job = await services.submit("touch new", repository_id=await services.repository(remote), policy=policy)
    decide = checkpoint_pb2.RejectCheckpointRequest(
        checkpoint_id=(await services.asked(job.job_id)).checkpoint_id, reason="not yet"
    )
    await services.checkpoints.RejectCheckpoint(decide)
    assert (await services.ended(job.job_id)).reason == "REJECTED"
    await services.jobs.PushJob(job_pb2.PushJobRequest(job_id=job.job_id))
    asked = await services.asked(job.job_id)
    assert not asked.takes_changes
    assert remote.git("for-each-ref", "refs/heads/boatyard") == ""
    whole = checkpoint_pb2.GetCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    seen = (await services.checkpoints.GetCheckpoint(whole)).checkpoint.output
    assert [file.path for file in seen.files_changed] == ["new"]
    await services.checkpoints.ApproveCheckpoint(
        checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    )
    assert (await services.ended(job.job_id)).output.pushed
