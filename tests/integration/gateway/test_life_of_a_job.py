"""Jobs from admission to their end, by the public API, on real node services."""

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import catalog_pb2, hook_pb2, job_pb2, runtime_pb2
from boatyard.git.v1.git_pb2 import ChangedFile
from google.protobuf.duration_pb2 import Duration

from services.common.errors import AlreadyExists, FailedPrecondition, Invalid
from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.kit import processes
from tests.kit.catalog import refusal
from tests.kit.cell import BOATYARD
from tests.kit.layout import git_directory
from tests.kit.repos import Repo
from tests.kit.services import Services

SUCCEEDED, FAILED, CANCELLED = (
    job_pb2.Job.State.Value(f"STATE_{name}") for name in ("SUCCEEDED", "FAILED", "CANCELLED")
)
DONE, BROKEN = job_pb2.StageRecord.STATE_DONE, job_pb2.StageRecord.STATE_FAILED


def stages(job: job_pb2.Job) -> dict[str, int]:
    return {stage.name: stage.state for stage in job.timeline}


def branches(remote: Repo) -> list[str]:
    return remote.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()


async def workspaces(services: Services, job_id: str) -> list[str]:
    answer = await services.runtime.ListWorkspaces(runtime_pb2.ListWorkspacesRequest(job_id=job_id))
    return [workspace.workspace_id for workspace in answer.workspaces]


async def listed(services: Services, **filters: object) -> list[str]:
    answer = await services.runtime.ListExecutions(runtime_pb2.ListExecutionsRequest(**filters))
    return [execution.execution_id for execution in answer.executions]


async def execution_of(services: Services, job: job_pb2.Job) -> runtime_pb2.Execution:
    request = runtime_pb2.GetExecutionRequest(execution_id=job.execution_ids[0])
    return (await services.runtime.GetExecution(request)).execution


async def test_a_change_is_taken_checked_and_pushed(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    job = await services.run(
        "cat > prompt.txt; rm README; echo working; echo all done >&2",
        prompt="Write it down.\nAnd more.",
        repository_id=repository,
        policy={"verify_command": "test -e prompt.txt && ! test -e README"},
    )
    assert (job.state, job.reason) == (SUCCEEDED, "")
    assert list(stages(job)) == [
        *("hooks", "base", "workspace", "branch", "start", "agent", "take", "diff", "verify", "push", "cleanup")
    ]
    assert set(stages(job).values()) == {DONE}
    output = job.output
    assert output.branch == f"boatyard/{job.job_id}"
    assert output.pushed
    assert output.base_commit_id == remote.head("main")
    assert output.commit_id == remote.head(output.branch)
    assert remote.files(output.branch)["prompt.txt"] == "Write it down.\nAnd more."
    changes = [(change.path, change.change) for change in output.files_changed]
    assert changes == [("README", ChangedFile.CHANGE_DELETED), ("prompt.txt", ChangedFile.CHANGE_ADDED)]
    assert output.total_files_changed == 2
    assert "+And more." in output.diff
    assert output.verification.passed
    assert output.verification.exit_code == 0
    assert output.exit_code == 0
    assert output.log_tail in {"working\nall done\n", "all done\nworking\n"}
    assert output.output_bytes == 17
    assert "all done" in output.summary
    message = remote.git("log", "-1", "--format=%an <%ae> %ct%n%B", output.branch)
    assert message == (
        f"Boatyard <noreply@boatyard.dev> {job.create_time.seconds}\nWrite it down.\n\nBoatyard-Job: {job.job_id}\n"
    )
    assert job.workspace_id == ""
    assert await workspaces(services, job.job_id) == []
    check = runtime_pb2.GetExecutionRequest(execution_id=output.verification.execution_id)
    verified = (await services.runtime.GetExecution(check)).execution
    assert verified.state == runtime_pb2.Execution.STATE_SUCCEEDED
    assert (verified.job_state, verified.branch) == (SUCCEEDED, output.branch)
    assert await listed(services, job_id=job.job_id) == list(job.execution_ids), "those of agents"
    assert await listed(services, job_id=job.job_id, purposes=["PURPOSE_VERIFY"]) == [verified.execution_id]


async def test_a_worker_works_on_a_work_item(services: Services, remote: Repo) -> None:
    catalog, repository = services.catalog, await services.repository(remote)
    template = catalog_pb2.Template(
        agent={"command": {"line": "false"}, "system_prompt": "Be brief.", "environment": {"A": "1", "B": "1"}},
        policy={"publish": "PUBLISH_NONE"},
    )
    made = (await catalog.CreateTemplate(catalog_pb2.CreateTemplateRequest(template=template))).template
    command = "env > env.txt; printf %s > prompt.txt"  # the prompt is appended
    worker = catalog_pb2.Worker(
        display_name="Ada",
        template_id=made.template_id,
        agent={
            "command": {"line": command, "prompt_delivery": "PROMPT_DELIVERY_ARGUMENT"},
            "model": "best",
            "environment": {"B": "2"},
        },
        policy={"publish": "PUBLISH_PUSH"},
    )
    worker_id = (await catalog.CreateWorker(catalog_pb2.CreateWorkerRequest(worker=worker))).worker.worker_id
    item = catalog_pb2.WorkItem(
        title="It leaks", description="Below the mast.", notes=["Since May."], repository_id=repository
    )
    item_id = (await catalog.CreateWorkItem(catalog_pb2.CreateWorkItemRequest(work_item=item))).work_item.work_item_id
    request = runtime_pb2.ExecuteRequest(
        worker_id=worker_id, work_item_id=item_id, prompt="Mend it.", timeout=Duration(seconds=60)
    )
    answer = await services.runtime.Execute(request)
    job = await services.ended(answer.job_id)
    assert job.state == SUCCEEDED, job
    assert job.execution_ids == [answer.execution_id]
    assert job.spec.agent.timeout.seconds == 60
    branch = f"ticket-{item_id}"
    files = remote.files(branch)
    expected = "# It leaks\n\nBelow the mast.\n\n## Notes\n\nSince May.\n\n## What to do\n\nMend it."
    assert files["prompt.txt"].rstrip() == expected
    environment = dict(line.split("=", 1) for line in files["env.txt"].splitlines())
    assert (environment["A"], environment["B"]) == ("1", "2")
    assert environment["BOATYARD_SYSTEM_PROMPT"] == "Be brief."
    assert environment["BOATYARD_MODEL"] == "best"
    assert environment["BOATYARD_JOB_ID"] == job.job_id
    assert environment["BOATYARD_EXECUTION_ID"] == answer.execution_id
    assert remote.git("log", "-1", "--format=%an", branch) == "Ada"
    got = await catalog.GetWorkItem(catalog_pb2.GetWorkItemRequest(work_item_id=item_id))
    assert got.work_item.state == catalog_pb2.WorkItem.STATE_REVIEW


async def test_a_job_without_a_repository_has_an_empty_workspace(services: Services) -> None:
    job = await services.run("ls -A; echo x > left; pwd", policy={"retention": "RETENTION_KEEP"})
    assert job.state == SUCCEEDED
    assert list(stages(job)) == ["hooks", "base", "workspace", "start", "agent", "take", "diff", "cleanup"]
    assert job.output.log_tail == "/workspace\n"
    assert await workspaces(services, job.job_id) == [job.workspace_id]
    await services.runtime.DeleteWorkspace(runtime_pb2.DeleteWorkspaceRequest(workspace_id=job.workspace_id))
    assert await workspaces(services, job.job_id) == []


async def test_nothing_changed_is_a_result(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    job = await services.run("echo fine", repository_id=repository, policy={"verify_command": "test -e README"})
    assert job.state == SUCCEEDED
    assert (job.output.commit_id, job.output.pushed) == (job.output.base_commit_id, False)
    assert job.output.verification.passed
    assert branches(remote) == ["main"]


async def test_what_starts_from_a_tag_and_is_not_published(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    job = await services.run(
        "cat src/lib.py; touch new", repository_id=repository, revision="v1", policy={"publish": "PUBLISH_NONE"}
    )
    assert job.output.base_commit_id == remote.head("v1")
    assert job.output.log_tail.endswith("return 1\n")
    assert (job.output.pushed, branches(remote)) == (False, ["main"])


FAILURES = {
    "the agent": ("echo so far > part; echo why >&2; exit 7", {}, "AGENT_FAILED", "take"),
    "not installed": ("no-such-program --now", {}, "AGENT_NOT_INSTALLED", "take"),
    "too slow": ("echo so far > part; sleep 60", {"agent": {"timeout": Duration(seconds=1)}}, "TIMED_OUT", "take"),
    "silent": ("echo so far > part; sleep 60", {"agent": {"idle_timeout": Duration(seconds=1)}}, "IDLE", "take"),
    "verify": ("touch new", {"policy": {"verify_command": "echo not good; exit 3"}}, "VERIFY_FAILED", "verify"),
    "verify too slow": (
        "touch new",
        {"policy": {"verify_command": "sleep 60", "verify_timeout": Duration(seconds=1)}},
        "VERIFY_FAILED",
        "verify",
    ),
    "branch taken": ("touch new", {"branch": b"main"}, "BRANCH_EXISTS", "base"),
    "branch in the way": ("touch new", {"branch": b"main/work"}, "BRANCH_IN_THE_WAY", "base"),
    "no such revision": ("touch new", {"revision": b"nowhere"}, "REVISION_NOT_FOUND", "base"),
}


OFTEN = ("the agent", "verify", "no such revision")


@pytest.mark.parametrize(
    ("command", "spec", "reason", "last"),
    [
        pytest.param(*failure, id=name, marks=() if name in OFTEN else pytest.mark.slow)
        for name, failure in FAILURES.items()
    ],
)
async def test_a_failure_has_its_reason_and_publishes_nothing(
    services: Services, remote: Repo, command: str, spec: dict, reason: str, last: str
) -> None:
    job = await services.run(command, repository_id=await services.repository(remote), **spec)
    assert (job.state, job.reason) == (FAILED, reason), job.message
    assert job.message
    assert branches(remote) == ["main"]
    assert last in stages(job)
    if last == "take":
        assert "verify" not in stages(job)
        assert bool(job.output.files_changed) is ("part" in command), "what was done is kept"
        assert await workspaces(services, job.job_id) == [job.workspace_id]
    if last == "verify":
        assert not job.output.verification.passed
        assert job.output.files_changed[0].path == "new"
    execution = (
        await services.runtime.GetExecution(runtime_pb2.GetExecutionRequest(execution_id=job.execution_ids[0]))
    ).execution
    assert execution.state not in {runtime_pb2.Execution.STATE_PENDING, runtime_pb2.Execution.STATE_RUNNING}


async def test_a_repository_that_is_not_there(services: Services, tmp_path: Path) -> None:
    job = await services.run("true", repository_id=await services.repository(tmp_path / "nowhere.git"))
    assert (job.state, job.reason) == (FAILED, "REMOTE_NOT_FOUND")
    assert len(job.execution_ids) == 1, "it does not come to be by asking again"
    assert stages(job) == {"hooks": DONE, "base": BROKEN}
    request = runtime_pb2.GetExecutionRequest(execution_id=job.execution_ids[0])
    execution = (await services.runtime.GetExecution(request)).execution
    assert (execution.state, execution.reason) == (runtime_pb2.Execution.STATE_FAILED, "REMOTE_NOT_FOUND")
    assert await services.output(execution.execution_id) == b"", "it never began, so there is nothing to see"


async def test_a_push_that_is_refused(services: Services, remote: Repo) -> None:
    remote.git("config", "transfer.hideRefs", "refs/heads/boatyard")
    job = await services.run("touch new", repository_id=await services.repository(remote))
    assert (job.state, job.reason) == (FAILED, "PUSH_REJECTED")
    assert "deny updating a hidden ref" in job.message
    assert not job.output.pushed
    assert job.output.commit_id


@pytest.fixture
async def project(services: Services) -> str:
    request = catalog_pb2.CreateProjectRequest(project=catalog_pb2.Project(project_id=new_id("project")))
    return (await services.catalog.CreateProject(request)).project.project_id


async def register(services: Services, project: str, command: str, order: int, **fields: object) -> str:
    hook = hook_pb2.Hook(project_id=project, event="EVENT_PRE", command=command, order=order, **fields)
    return (await services.hooks.CreateHook(hook_pb2.CreateHookRequest(hook=hook))).hook.hook_id


async def test_hooks_see_the_job_and_may_veto_it(services: Services, project: str) -> None:
    await register(services, project, "ls -A; cat", 1)
    await register(services, project, "grep -q harmless || { echo first; echo too dangerous; exit 1; }", 2)
    good = await services.run("true", project_id=project, prompt="something harmless")
    assert good.state == SUCCEEDED
    assert [name for name in stages(good) if "hook" in name] == ["hooks", "pre-hook-1", "pre-hook-2"]
    seen = json.loads(await services.output(f"{good.execution_ids[0]}-pre-hook-1"))
    assert seen["jobId"] == good.job_id
    assert seen["spec"]["prompt"] == "something harmless"
    bad = await services.run("true", project_id=project, prompt="something else")
    assert (bad.state, bad.reason, bad.message) == (FAILED, "VETOED", "too dangerous")
    assert stages(bad) == {"hooks": DONE, "pre-hook-1": DONE, "pre-hook-2": BROKEN}
    assert await workspaces(services, bad.job_id) == []


@pytest.mark.slow
async def test_a_hook_that_takes_too_long(services: Services, project: str) -> None:
    await register(services, project, "sleep 60", 1, timeout=Duration(seconds=1))
    job = await services.run("true", project_id=project)
    assert (job.state, job.reason) == (FAILED, "HOOK_FAILED")


async def cancelled(services: Services, job_id: str) -> job_pb2.Job:
    """Cancel a job; return it when it has ended, which must be soon."""
    started = time.monotonic()
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job_id))
    job = await services.ended(job_id)
    assert job.state == CANCELLED, job
    assert time.monotonic() - started < 12, "5 s of grace, and what a busy machine adds"
    assert processes.with_marker(job_id) == []
    return job


async def test_cancel_in_mid_run(services: Services, remote: Repo) -> None:
    job = await services.submit(
        "echo so far > part; echo begun; sleep 600", repository_id=await services.repository(remote)
    )
    await services.until(job.job_id, lambda now: "agent" in stages(now))
    while b"begun" not in await services.output(job.execution_ids[0], follow=False):
        assert (await services.job(job.job_id)).state == job_pb2.Job.STATE_RUNNING
    ended = await cancelled(services, job.job_id)
    assert [change.path for change in ended.output.files_changed] == ["part"]
    assert "verify" not in stages(ended)
    assert branches(remote) == ["main"]
    error = await refusal(services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id)), FailedPrecondition)
    assert (error.reason, error.metadata["state"]) == ("JOB_STATE", "CANCELLED")
    wanted = runtime_pb2.CancelExecutionRequest(execution_id=job.execution_ids[0])
    assert (await refusal(services.runtime.CancelExecution(wanted), FailedPrecondition)).reason == "JOB_STATE"


async def test_a_running_execution_tells_when_it_began_and_of_its_job(services: Services, remote: Repo) -> None:
    job = await services.submit("sleep 600", repository_id=await services.repository(remote), branch="work")
    await services.until(job.job_id, lambda now: "agent" in stages(now))
    running = await execution_of(services, job)
    assert (running.state, running.job_state, running.job_reason) == (
        runtime_pb2.Execution.STATE_RUNNING,
        job_pb2.Job.STATE_RUNNING,
        "",
    )
    assert running.branch == "work"
    assert [running.workspace_id] == await workspaces(services, job.job_id)
    assert running.start_time.ToNanoseconds() > running.create_time.ToNanoseconds()
    await services.runtime.CancelExecution(runtime_pb2.CancelExecutionRequest(execution_id=running.execution_id))
    assert (await services.ended(job.job_id)).state == CANCELLED
    ended = await execution_of(services, job)
    assert (ended.start_time, ended.job_state) == (running.start_time, CANCELLED)


async def test_cancel_while_a_hook_runs(services: Services, project: str) -> None:
    await register(services, project, "sleep 300", 1, timeout=Duration(seconds=300))
    job = await services.submit("true", project_id=project)
    await services.until(job.job_id, lambda now: "pre-hook-1" in stages(now))
    ended = await cancelled(services, job.job_id)
    assert stages(ended) == {"hooks": DONE, "pre-hook-1": BROKEN}
    assert await workspaces(services, job.job_id) == []


async def test_cancel_while_the_check_runs(services: Services, remote: Repo) -> None:
    job = await services.submit(
        "touch new",
        repository_id=await services.repository(remote),
        policy={"verify_command": "sleep 300", "verify_timeout": Duration(seconds=300)},
    )
    await services.until(job.job_id, lambda now: "verify" in stages(now))
    # By its agent's execution, which has ended.
    await services.runtime.CancelExecution(runtime_pb2.CancelExecutionRequest(execution_id=job.execution_ids[0]))
    ended = await cancelled(services, job.job_id)
    assert ended.output.commit_id
    assert branches(remote) == ["main"]
    assert await workspaces(services, job.job_id) == [ended.workspace_id]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_cancel_while_an_endless_result_is_taken(services: Services, remote: Repo) -> None:
    """30 GiB of zeros take no disk, are less than is refused, and git reads them for minutes."""
    job = await services.submit("truncate -s 30G zeros", repository_id=await services.repository(remote))
    await services.until(job.job_id, lambda now: "take" in stages(now))
    started = time.monotonic()
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    async with asyncio.timeout(100):  # the grace of the result, and that of the snapshot
        while (ended := await services.job(job.job_id)).state != CANCELLED:
            await asyncio.sleep(0.5)
    assert time.monotonic() - started > 25, "it was given time"
    assert await workspaces(services, job.job_id) == [ended.workspace_id], "which has the only copy"
    assert list((git_directory(services.home) / "building").iterdir()) == [], "nobody goes on reading"


async def test_cancel_at_once(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    for _ in range(5):
        job = await services.submit("sleep 300", repository_id=repository)
        await cancelled(services, job.job_id)


async def test_the_same_request_is_the_same_job(services: Services) -> None:
    request = job_pb2.CreateJobRequest(
        request_id=new_id("request"), spec=job_pb2.JobSpec(prompt="x", agent={"command": {"line": "true"}})
    )
    first = (await services.jobs.CreateJob(request)).job
    await services.ended(first.job_id)
    assert (await services.jobs.CreateJob(request)).job.job_id == first.job_id
    request.spec.prompt = "y"
    assert (await refusal(services.jobs.CreateJob(request), AlreadyExists)).reason == "REQUEST_ID_REUSED"


async def test_what_only_shows_when_all_is_laid_together(services: Services) -> None:
    spec = job_pb2.JobSpec(prompt="x", labels={"a" * 64: "b"}, branch="a..b", priority=101)
    error = await refusal(services.jobs.CreateJob(job_pb2.CreateJobRequest(spec=spec)), Invalid)
    assert {field for field, _ in error.violations} == {f'spec.labels["{"a" * 64}"]', "spec.branch", "spec.priority"}
    spec = job_pb2.JobSpec(prompt="x" * 200_000, agent={"command": {"prompt_delivery": "PROMPT_DELIVERY_ARGUMENT"}})
    error = await refusal(services.jobs.CreateJob(job_pb2.CreateJobRequest(spec=spec)), Invalid)
    assert {field for field, _ in error.violations} == {"spec.prompt", "spec.agent.command.line"}


async def test_a_diff_that_is_cut_is_kept_whole(services: Services, remote: Repo) -> None:
    job = await services.run(
        "seq 30000 > a.txt; seq 30000 > b.txt; echo z > z.txt", repository_id=await services.repository(remote)
    )
    assert job.output.diff_truncated
    assert len(job.output.diff) <= 64 << 10
    assert job.output.total_files_changed == 3
    request = runtime_pb2.ReadDiffRequest(execution_id=job.execution_ids[0])
    whole = b"".join([piece.data async for piece in services.runtime.ReadDiff(request)])
    assert whole.count(b"\n+") == 60001 + 3
    listed = await services.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=1))
    assert listed.jobs[0].output.diff == ""
    assert listed.jobs[0].output.total_files_changed == 3


async def test_the_diff_that_was_stored_is_there_when_the_result_is_gone(services: Services, remote: Repo) -> None:
    repository_id = await services.repository(remote)
    job = await services.run("echo new > new.txt", repository_id=repository_id)
    store = git_directory(services.home) / "results" / f"{repository_id}.git"
    Repo(store).git("update-ref", "-d", f"refs/results/{job.execution_ids[0]}")  # as a sweep does it,
    shutil.rmtree(store / "objects" / "pack")  # and some hours later
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.runtime.ReadDiff(runtime_pb2.ReadDiffRequest(execution_id=job.execution_ids[0])).read()
    assert service_error(caught.value).reason == "RESULT_EXPIRED"
    shown = await asyncio.create_subprocess_exec(
        *(BOATYARD, "diff", job.job_id),
        env=os.environ | services.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    diff, said = await shown.communicate()
    assert (shown.returncode, diff.decode()) == (0, job.output.diff), said
    assert b"+new" in diff
    assert b"all of its diff was stored" in said


async def test_reading_what_is_not_there_yet(services: Services, remote: Repo) -> None:
    job = await services.submit("sleep 300", repository_id=await services.repository(remote))
    running = await services.until(job.job_id, lambda now: "agent" in stages(now))
    diff = services.runtime.ReadDiff(runtime_pb2.ReadDiffRequest(execution_id=job.execution_ids[0]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await diff.read()
    assert service_error(caught.value).reason == "NO_RESULT"
    wanted = runtime_pb2.DeleteWorkspaceRequest(workspace_id=running.workspace_id)
    refused = await refusal(services.runtime.DeleteWorkspace(wanted), FailedPrecondition)
    assert (refused.reason, refused.metadata["job_id"]) == ("WORKSPACE_IN_USE", job.job_id)
    await cancelled(services, job.job_id)


async def test_lists_have_pages_and_filters(services: Services, project: str) -> None:
    made = [(await services.submit("true", project_id=project, labels={"n": str(n)})).job_id for n in range(5)]
    for job_id in made:
        await services.ended(job_id)
    found: list[str] = []
    request = job_pb2.ListJobsRequest(filter={"project_id": project, "states": [SUCCEEDED]}, page_size=2)
    while True:
        page = await services.jobs.ListJobs(request)
        found += [job.job_id for job in page.jobs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == made[::-1]
    executions = await services.runtime.ListExecutions(runtime_pb2.ListExecutionsRequest(job_id=made[0]))
    assert [execution.job_id for execution in executions.executions] == made[:1]
    assert executions.executions[0].output.exit_code == 0
