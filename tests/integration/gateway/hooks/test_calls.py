"""What hooks are told, what they can do, and what becomes of a job when they fail: on real services and receivers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.gateway.v1 import catalog_pb2, hook_pb2, job_pb2, runtime_pb2
from google.protobuf.duration_pb2 import Duration

from services.common.ids import new_id
from tests.kit.hooks import BROKEN, DONE, FAIL, IGNORE, Hooks, hook_calls, killed_in_mid_call
from tests.kit.receiver import SECRET, Reply, receiver
from tests.kit.repos import Repo
from tests.kit.services import Services

pytestmark = pytest.mark.slow

SUCCEEDED, FAILED, CANCELLED = (
    job_pb2.Job.State.Value(f"STATE_{name}") for name in ("SUCCEEDED", "FAILED", "CANCELLED")
)


@pytest_asyncio.fixture
async def project(services: Services) -> str:
    request = catalog_pb2.CreateProjectRequest(project=catalog_pb2.Project(project_id=new_id("project")))
    return (await services.catalog.CreateProject(request)).project.project_id


@pytest.fixture
def register(services: Services, project: str) -> Hooks:
    return Hooks(services, project)


async def repository(services: Services, project: str, remote: Repo) -> str:
    return (await Hooks(services, project).spec(remote))["repository_id"]


async def test_a_server_gets_the_result_when_it_is_published(
    services: Services, project: str, register: Hooks, remote: Repo
) -> None:
    async with receiver(Reply(200, b"noted\nand more")) as server:
        hook = await register.web("POST", server.url)
        job = await services.run(
            "touch new", project_id=project, repository_id=await repository(services, project, remote)
        )
    (told,) = server.received
    told.check()
    assert (told.json["type"], told.json["data"]["hook_id"]) == ("job.post", hook.hook_id)
    seen = told.json["data"]["job"]
    assert (seen["jobId"], seen["state"], seen["output"]["pushed"]) == (job.job_id, "STATE_SUCCEEDED", True)
    assert seen["output"]["commitId"] == remote.head(f"boatyard/{job.job_id}")
    assert (job.state, hook_calls(job)) == (
        SUCCEEDED,
        {"post-hook-1": (DONE, f"{hook.hook_id}: answered 200: noted")},
    )
    order = [stage.name for stage in job.timeline]
    assert order.index("push") < order.index("post-hook-1") < order.index("cleanup")


async def test_a_server_gets_the_error(services: Services, project: str, register: Hooks) -> None:
    async with receiver() as server:
        await register.web("ERROR", server.url)
        await register.web("POST", server.url)
        job = await services.run("echo oh no; exit 3", project_id=project)
    (told,) = server.received
    told.check()
    seen = told.json["data"]["job"]
    assert told.json["type"] == "job.error"
    assert (seen["state"], seen["reason"], seen["message"]) == ("STATE_FAILED", "AGENT_FAILED", job.message)
    assert seen["output"]["summary"] == "oh no"
    assert (job.state, job.reason, list(hook_calls(job))) == (FAILED, "AGENT_FAILED", ["error-hook-1"])


async def test_commands_find_the_workspace_as_the_agent_left_it(
    services: Services, project: str, register: Hooks, remote: Repo
) -> None:
    look = 'cat left; echo "$BOATYARD_HOOK_EVENT $BOATYARD_HOOK_ID"; touch "by hook"; git status --short; cat >&2'
    post, error = await register("POST", command=look), await register("ERROR", command=look)
    wanted = {"project_id": project, "repository_id": await repository(services, project, remote)}
    good = await services.run("echo something > left", **wanted)
    bad = await services.run("echo something > left; exit 1", **wanted)
    for job, name, hook in ((good, "post-hook-1", post), (bad, "error-hook-1", error)):
        assert hook_calls(job)[name][0] == DONE, hook_calls(job)
        output = (await services.output(f"{job.execution_ids[0]}-{name}")).decode()
        assert output.startswith("something\n")
        assert f"{name.partition('-')[0].upper()} {hook.hook_id}\n" in output
        assert "?? left\n" in output
        seen = json.loads(output[output.index("{") : output.rindex("}") + 1])
        assert seen["jobId"] == job.job_id
    assert "by hook" not in remote.files(f"boatyard/{good.job_id}"), "the result had been taken before"
    asked = runtime_pb2.ListWorkspacesRequest(job_id=good.job_id)
    assert (await services.runtime.ListWorkspaces(asked)).workspaces == [], "removed after the hook"


VETO = json.dumps({"allow": False, "reason": "not on a Friday"}).encode()


async def test_a_server_may_veto_and_the_error_hooks_hear_of_it(
    services: Services, project: str, register: Hooks
) -> None:
    async with receiver(Reply(200, b'{"allow": true}'), Reply(200, VETO)) as server, receiver() as told:
        await register.web("PRE", server.url, failure_policy=IGNORE)
        await register.web("ERROR", told.url)
        await register("ERROR", command="ls -A; true")
        good = await services.run("true", project_id=project)
        bad = await services.run("true", project_id=project)
    assert good.state == SUCCEEDED
    assert (bad.state, bad.reason, bad.message) == (FAILED, "VETOED", "not on a Friday")
    assert [(name, state) for name, (state, _) in hook_calls(bad).items()] == [
        *[("pre-hook-1", BROKEN), ("error-hook-1", DONE), ("error-hook-2", DONE)]
    ]
    assert [received.json["data"]["job"]["reason"] for received in told.received] == ["VETOED"]
    assert server.received[0].json["type"] == "job.pre"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(204), ""),
        (Reply(200, b"ok"), ""),
        (Reply(200, b'["allow"]'), ""),
        (Reply(200, b'{"allow": false}'), "VETOED"),
        (Reply(200, b'{"allow": "no"}'), "HOOK_FAILED"),
        (Reply(200, b"[" * 60_000), ""),
        (Reply(200, VETO, {"content-encoding": "gzip"}), "HOOK_FAILED"),
        (Reply(200, b" " * 70_000 + VETO), "HOOK_FAILED"),
        (Reply(404, VETO), "HOOK_FAILED"),
    ],
)
async def test_what_an_answer_means(
    services: Services, project: str, register: Hooks, reply: Reply, reason: str
) -> None:
    async with receiver(reply) as server:
        await register.web("PRE", server.url)
        job = await services.run("true", project_id=project)
    assert (job.state, job.reason) == (FAILED if reason else SUCCEEDED, reason), job.message


async def test_a_hook_that_fails_does_to_the_job_what_its_policy_says(
    services: Services, project: str, register: Hooks, remote: Repo
) -> None:
    async with receiver() as down:
        pass
    async with receiver(Reply(is_silent=True)) as slow, receiver() as told:
        await register.web("PRE", slow.url, timeout=Duration(nanos=50_000_000), failure_policy=IGNORE)
        await register.web("POST", down.url)
        await register("POST", command="echo broken; exit 9", failure_policy=FAIL)
        await register("POST", command="true")
        await register.web("ERROR", told.url)
        job = await services.run(
            "touch new", project_id=project, repository_id=await repository(services, project, remote)
        )
    assert (job.state, job.reason) == (FAILED, "HOOK_FAILED")
    assert "exited with code 9: broken" in job.message
    assert job.output.pushed, "what is published stays so"
    assert remote.head(f"boatyard/{job.job_id}") == job.output.commit_id
    went = hook_calls(job)
    assert {name: state for name, (state, _) in went.items()} == {
        "pre-hook-1": BROKEN,
        "post-hook-1": BROKEN,
        "post-hook-2": BROKEN,
        "error-hook-1": DONE,
    }, "the hooks after one that failed the job are not called"
    assert "no answer within 0.05 s" in went["pre-hook-1"][1]
    assert "no connection" in went["post-hook-1"][1]
    seen = told.received[0].json["data"]["job"]
    assert (seen["reason"], seen["output"]["pushed"]) == ("HOOK_FAILED", True)


async def test_a_redirect_is_a_failure(services: Services, project: str, register: Hooks) -> None:
    async with receiver() as elsewhere, receiver(Reply(307, headers={"location": elsewhere.url})) as server:
        await register.web("PRE", server.url)
        job = await services.run("true", project_id=project)
    assert (job.reason, elsewhere.received) == ("HOOK_FAILED", [])
    assert "redirects are not followed" in job.message


@pytest.mark.parametrize("event", ["PRE", "POST", "ERROR"])
async def test_a_killed_gateway_repeats_the_call_that_was_under_way_and_no_other(
    services: Services, project: str, register: Hooks, event: str
) -> None:
    replies = [Reply(200), Reply(is_silent=True), Reply(200)]
    async with receiver(*replies) as server:
        for order in range(3):
            await register.web(event, server.url, order=order, timeout=Duration(seconds=60))
        job = await services.submit("false" if event == "ERROR" else "true", project_id=project)
        await server.until(2)
        await killed_in_mid_call(services)
        ended = await services.ended(job.job_id)
    assert ended.state == (FAILED if event == "ERROR" else SUCCEEDED)
    assert ended.reason == ("AGENT_FAILED" if event == "ERROR" else "")
    names = [f"{job.execution_ids[0]}-{event.lower()}-hook-{number}" for number in (1, 2, 2, 3)]
    assert [received.message_id for received in server.received] == names
    for received in server.received:
        received.check()
    assert [state for state, _ in hook_calls(ended).values()] == [DONE] * 3


@pytest.mark.parametrize(
    ("event", "state"), [("PRE", CANCELLED), ("POST", SUCCEEDED), ("ERROR", FAILED)], ids=["PRE", "POST", "ERROR"]
)
@pytest.mark.parametrize("kind", ["command", "webhook"])
async def test_a_cancel_cuts_hooks_short(
    services: Services, project: str, register: Hooks, event: str, state: int, kind: str
) -> None:
    async with receiver(Reply(is_silent=True)) as server:
        if kind == "webhook":
            await register.web(event, server.url, timeout=Duration(seconds=60))
        else:
            await register(event, command="sleep 60", timeout=Duration(seconds=60))
        await register(event, command="true")
        job = await services.submit("false" if event == "ERROR" else "true", project_id=project)
        name = f"{event.lower()}-hook-1"

        def begun(now: job_pb2.Job) -> bool:
            return name in hook_calls(now)

        await services.until(job.job_id, begun)
        await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
        ended = await services.ended(job.job_id, timeout=20)
    assert (ended.state, list(hook_calls(ended))) == (state, [name])
    assert hook_calls(ended)[name][0] == BROKEN
    if event == "ERROR":
        assert ended.reason == "AGENT_FAILED", "it had failed before"


async def test_jobs_that_were_taken_call_a_hook_that_is_deleted_meanwhile(
    services: Services, project: str, register: Hooks
) -> None:
    async with receiver() as server:
        hook = await register.web("POST", server.url)
        job = await services.submit("sleep 1", project_id=project)

        def taken(now: job_pb2.Job) -> bool:
            return any(stage.name == "workspace" for stage in now.timeline)

        await services.until(job.job_id, taken)
        await services.hooks.DeleteHook(hook_pb2.DeleteHookRequest(hook_id=hook.hook_id))
        assert (await services.ended(job.job_id)).state == SUCCEEDED
        assert (await services.run("true", project_id=project)).state == SUCCEEDED
    assert len(server.received) == 1
    server.received[0].check()


def find(directory: Path, holds: Callable[[bytes], bool]) -> list[str]:
    return [str(path) for path in directory.rglob("*") if path.is_file() and holds(path.read_bytes())]


async def test_a_secret_is_in_no_file(services: Services, project: str, register: Hooks) -> None:
    async with receiver(Reply(404)) as server:
        await register.web("PRE", server.url, failure_policy=IGNORE)
        await register("PRE", command="cat")
        await services.run("true", project_id=project)
    planted = services.root / "planted"
    planted.write_text(SECRET)
    found = find(services.root, lambda content: SECRET.encode() in content)
    planted.unlink()
    assert found == [str(planted)], "the search finds what is there, and nothing else is"
