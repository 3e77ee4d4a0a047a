"""Git in a workspace, through a gateway, as docs/from-older-systems.md has it; no floor is gone around by it."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from services.common.errors import ServiceError
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.sandbox import layer_locks
from tests.kit.githttp import git_server
from tests.kit.lfs import LfsServer, pointer_to
from tests.kit.repos import Repo
from tests.kit.services import Services

pytestmark = pytest.mark.slow

FAILED, SUCCEEDED = job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_SUCCEEDED
PATIENCE = 60.0
"""Seconds for a call: git runs in some sandboxes, one after another."""
WORKFLOW = ".github/workflows/ci.yml"


async def set_floor(services: Services, **floor: object) -> None:
    project = catalog_pb2.Project(project_id="default", floor=floor)  # type: ignore[arg-type]
    mask = FieldMask(paths=["floor"])
    await services.catalog.UpdateProject(catalog_pb2.UpdateProjectRequest(project=project, update_mask=mask))


@pytest.fixture
async def unfloored(services: Services) -> AsyncIterator[Services]:
    """Services whose default project loses its floor when the test ends."""
    yield services
    await set_floor(services)


async def refusal(call) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return service_error(caught.value)


async def left_by(services: Services, remote: Repo, command: str, **spec: object) -> job_pb2.Job:
    """Run a job that fails after a command; return it, with its workspace."""
    job = await services.run(f"{command}; exit 3", repository_id=await services.repository(remote), **spec)
    assert (job.state, job.reason) == (FAILED, "AGENT_FAILED")
    return job


async def diff_of(services: Services, workspace_id: str) -> bytes:
    request = runtime_pb2.ReadWorkspaceDiffRequest(workspace_id=workspace_id)
    async with streaming(services.runtime.ReadWorkspaceDiff(request)) as messages:
        return b"".join([message.data async for message in messages])


async def push(services: Services, workspace_id: str, **more: str) -> job_pb2.Job:
    request = runtime_pb2.PushWorkspaceRequest(workspace_id=workspace_id, **more)
    return (await services.runtime.PushWorkspace(request, timeout=PATIENCE)).job


async def test_older_systems_status_branch_commit_diff_push(services: Services, remote: Repo) -> None:
    secret = {"secrets": {"KEY": "s3cr3t-value"}, "command": {"line": "echo $KEY > new-$KEY; exit 3"}}
    repository_id = await services.repository(remote)
    submitted = job_pb2.JobSpec(prompt="Do it.", repository_id=repository_id, agent=secret)
    job = await services.ended((await services.jobs.CreateJob(job_pb2.CreateJobRequest(spec=submitted))).job.job_id)
    workspace_id = job.workspace_id

    asked = runtime_pb2.GetWorkspaceStatusRequest(workspace_id=workspace_id)
    status = await services.runtime.GetWorkspaceStatus(asked, timeout=PATIENCE)
    assert (status.branch, status.commit_id) == (f"boatyard/{job.job_id}", remote.head("main"))
    assert [(entry.path, entry.index, entry.worktree) for entry in status.entries] == [("new-[redacted:KEY]", "?", "?")]
    diff = await diff_of(services, workspace_id)
    assert b"+[redacted:KEY]" in diff
    assert b"s3cr3t" not in diff

    path = Path(
        (await services.runtime.GetWorkspace(runtime_pb2.GetWorkspaceRequest(workspace_id=workspace_id))).workspace.path
    )
    (path / "new-s3cr3t-value").write_text("by a person\n")
    branch = runtime_pb2.BranchWorkspaceRequest(workspace_id=workspace_id, branch="refs/heads/by-hand")
    assert (await services.runtime.BranchWorkspace(branch, timeout=PATIENCE)).commit_id == remote.head("main")
    commit = runtime_pb2.CommitWorkspaceRequest(workspace_id=workspace_id, message="By hand")
    made = (await services.runtime.CommitWorkspace(commit, timeout=PATIENCE)).commit_id
    assert (await services.runtime.CommitWorkspace(commit, timeout=PATIENCE)).commit_id == made, (
        "a repeated call is the same commit"
    )
    status = await services.runtime.GetWorkspaceStatus(asked, timeout=PATIENCE)
    assert (status.branch, status.commit_id, status.is_clean) == ("by-hand", made, True)
    assert await diff_of(services, workspace_id) == b""
    commit.message = "Another"
    assert (await refusal(services.runtime.CommitWorkspace(commit, timeout=PATIENCE))).reason == "NOTHING_TO_COMMIT"

    queued = await push(services, workspace_id, branch="by-hand", request_id=f"push-{job.job_id}")
    assert (queued.job_id, queued.state) == (job.job_id, job_pb2.Job.STATE_PENDING)
    again = await push(services, workspace_id, branch="by-hand", request_id=f"push-{job.job_id}")
    assert again.job_id == job.job_id, "whose answer was lost is answered again, also while the job works"
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.output.pushed, ended.output.commit_id) == (SUCCEEDED, True, made), ended
    assert remote.head("by-hand") == made
    assert remote.git("log", "-1", "--format=%an %s", "by-hand") == "admin By hand"


async def test_a_commit_lacks_what_no_result_has(services: Services, remote: Repo) -> None:
    job = await left_by(services, remote, "echo x | tee wanted .mine.log", policy={"leave_out": [".mine*"]})
    commit = runtime_pb2.CommitWorkspaceRequest(workspace_id=job.workspace_id, message="x")
    made = (await services.runtime.CommitWorkspace(commit, timeout=PATIENCE)).commit_id
    await push(services, job.workspace_id, branch=f"by-{job.job_id}")
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.output.commit_id) == (SUCCEEDED, made), ended
    assert ".mine.log" not in remote.git("ls-tree", "-r", "--name-only", made).split()


async def test_older_systems_409_while_an_agent_is_in_it(services: Services, remote: Repo) -> None:
    job = await services.submit("sleep 300", repository_id=await services.repository(remote))
    running = await services.until(job.job_id, lambda now: any(stage.name == "agent" for stage in now.timeline))
    workspace_id = {"workspace_id": running.workspace_id}
    runtime = services.runtime
    for call in (
        runtime.GetWorkspaceStatus(runtime_pb2.GetWorkspaceStatusRequest(**workspace_id), timeout=PATIENCE),
        runtime.BranchWorkspace(runtime_pb2.BranchWorkspaceRequest(**workspace_id, branch="x"), timeout=PATIENCE),
        runtime.CommitWorkspace(runtime_pb2.CommitWorkspaceRequest(**workspace_id, message="x"), timeout=PATIENCE),
        runtime.PushWorkspace(runtime_pb2.PushWorkspaceRequest(**workspace_id), timeout=PATIENCE),
        diff_of(services, running.workspace_id),
    ):
        refused = await refusal(call)
        assert (refused.status.name, refused.reason) == ("FAILED_PRECONDITION", "WORKSPACE_HELD")
        assert refused.metadata["job_id"] == job.job_id
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    await services.ended(job.job_id)


async def test_older_systems_a_sandbox_that_is_ending_is_waited_for(services: Services, remote: Repo) -> None:
    """One that stays in the workspace of an ended job is refused as an agent's is, and named."""
    job = await left_by(services, remote, "echo x > x")
    found = await services.runtime.GetWorkspace(runtime_pb2.GetWorkspaceRequest(workspace_id=job.workspace_id))
    files = Path(found.workspace.path)
    upper = files.with_name("upper") if files.with_name("upper").exists() else files
    asked = runtime_pb2.GetWorkspaceStatusRequest(workspace_id=job.workspace_id)
    held = layer_locks.acquire(upper, "an agent", shared=False)
    try:
        refused = await refusal(services.runtime.GetWorkspaceStatus(asked, timeout=PATIENCE))
        assert (refused.reason, refused.metadata["job_id"]) == ("WORKSPACE_HELD", job.job_id)
        assert refused.metadata["holder"].startswith("an agent ")
        status = asyncio.ensure_future(services.runtime.GetWorkspaceStatus(asked, timeout=PATIENCE))
        await asyncio.wait([status], timeout=1.0)
        assert not status.done()
    finally:
        os.close(held)
    assert [entry.path for entry in (await status).entries] == ["x"]


async def test_older_systems_a_push_is_no_way_around_a_floor(unfloored: Services, remote: Repo) -> None:
    """A workflow is asked about, a check runs, and where nothing is pushed this is not either."""
    services = unfloored
    job = await left_by(services, remote, f"mkdir -p .github/workflows && echo on: push > {WORKFLOW}")
    await set_floor(services, verify_command="test -e .github", protected_paths=[".github/workflows/**"])
    commit = runtime_pb2.CommitWorkspaceRequest(workspace_id=job.workspace_id, message="CI")
    await services.runtime.CommitWorkspace(commit, timeout=PATIENCE)
    await push(services, job.workspace_id)
    asked = await services.asked(job.job_id)
    assert asked.question == f"May the result be pushed? It changes protected paths: {WORKFLOW}."
    assert remote.git("branch", "--list", "boatyard/*") == "", "nobody has said yes"
    reject = checkpoint_pb2.RejectCheckpointRequest(checkpoint_id=asked.checkpoint_id, reason="no")
    await services.checkpoints.RejectCheckpoint(reject)
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.reason) == (FAILED, "REJECTED")
    assert remote.git("branch", "--list", "boatyard/*") == ""

    await set_floor(services, verify_command="false")
    await push(services, job.workspace_id)
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.reason) == (FAILED, "VERIFY_FAILED")

    await set_floor(services, never_pushed=True)
    assert (await refusal(push(services, job.workspace_id))).reason == "BELOW_FLOOR"
    assert remote.git("branch", "--list", "boatyard/*") == ""


async def test_older_systems_a_push_takes_what_the_job_would_take(services: Services, tmp_path: Path) -> None:
    """A file of Git LFS goes to its server, not into the repository."""
    content = b"contents\n" * 500
    work = Repo.sample(tmp_path / "work")
    lfs = LfsServer()
    rules = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
    work.commit("files", {".gitattributes": rules, "old.bin": lfs.add(b"old").text.decode()})
    bare = work.bare_clone(tmp_path / "served" / "app.git")
    bare.git("config", "http.receivepack", "true")
    with git_server(tmp_path / "served", "the-token") as server:
        server.lfs, server.records_processes = lfs, False
        repository = catalog_pb2.Repository(url=server.url("app"), token="the-token")
        request = catalog_pb2.CreateRepositoryRequest(repository=repository)
        repository_id = (await services.catalog.CreateRepository(request)).repository.repository_id
        line = "yes contents | head -500 > new.bin; exit 3"
        job = await services.run(line, repository_id=repository_id)
        assert job.reason == "AGENT_FAILED"
        await push(services, job.workspace_id)
        ended = await services.ended(job.job_id)
    assert (ended.state, ended.output.pushed) == (SUCCEEDED, True), ended
    assert lfs.objects[pointer_to(content).oid] == content
    assert bare.git("show", f"{ended.output.commit_id}:new.bin").encode().strip() == pointer_to(content).text.strip()


async def test_older_systems_what_cannot_be_pushed_of_a_workspace(services: Services, remote: Repo) -> None:
    unchanged = await left_by(services, remote, "true")
    assert (await refusal(push(services, unchanged.workspace_id))).reason == "NO_RESULT"
    without = await services.run("echo x > y; exit 3")
    assert (await refusal(push(services, without.workspace_id))).reason == "NO_RESULT"
    asked = runtime_pb2.GetWorkspaceStatusRequest(workspace_id=without.workspace_id)
    assert (await refusal(services.runtime.GetWorkspaceStatus(asked, timeout=PATIENCE))).reason == "NOT_A_REPOSITORY"
    nested = runtime_pb2.PushWorkspaceRequest(workspace_id=unchanged.workspace_id, branch="refs/tags/x")
    assert (await refusal(services.runtime.PushWorkspace(nested, timeout=PATIENCE))).reason == "INVALID_FIELDS"
    nowhere = runtime_pb2.GetWorkspaceStatusRequest(workspace_id="ws-nowhere")
    assert (
        await refusal(services.runtime.GetWorkspaceStatus(nowhere, timeout=PATIENCE))
    ).reason == "WORKSPACE_NOT_FOUND"


async def test_older_systems_what_an_agent_planted_is_not_run_by_us(
    services: Services, remote: Repo, tmp_path: Path
) -> None:
    """Hooks and programs in the configuration of its repository run in a sandbox, or not at all."""
    marker = tmp_path / "escaped"
    plant = (
        f"printf '#!/bin/sh\\ntouch {marker}\\n' | tee .git/hooks/pre-commit .git/hooks/post-commit;"
        " chmod +x .git/hooks/*;"
        f" git config core.fsmonitor 'touch {marker}'; git config filter.f.clean 'touch {marker}; cat';"
        " echo '* filter=f' > .gitattributes; echo x > x"
    )
    job = await left_by(services, remote, plant)
    await services.runtime.GetWorkspaceStatus(
        runtime_pb2.GetWorkspaceStatusRequest(workspace_id=job.workspace_id), timeout=PATIENCE
    )
    await diff_of(services, job.workspace_id)
    await services.runtime.CommitWorkspace(
        runtime_pb2.CommitWorkspaceRequest(workspace_id=job.workspace_id, message="x"), timeout=PATIENCE
    )
    assert not marker.exists()
