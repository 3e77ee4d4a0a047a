"""What hooks add to a job, what callbacks are asked, and the example of a server in examples/hooks."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from boatyard.gateway.v1 import checkpoint_pb2, hook_pb2, job_pb2
from boatyard.hook.v1 import callback_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from tests.kit.callbacks import TOKEN, callback_server
from tests.kit.contract import ROOT
from tests.kit.hooks import BROKEN, DONE, IGNORE, Hooks, hook_calls, killed_in_mid_call
from tests.kit.receiver import Reply, receiver
from tests.kit.repos import Repo
from tests.kit.services import Services

pytestmark = pytest.mark.slow

SUCCEEDED, FAILED = job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED


def adding(text: str, **labels: str) -> str:
    return json.dumps({"prompt_addition": text, "labels": labels})


async def test_an_agent_is_told_what_hooks_add_and_the_job_shows_it(services: Services, register: Hooks) -> None:
    async with (
        receiver(Reply(200, adding("By HTTP.", team="a", kept="é").encode())) as server,
        callback_server(
            pb.CallHookResponse(prompt_addition="By gRPC.", labels={"team": "b"}, note="noted")
        ) as callback,
    ):
        await register.web("PRE", server.url)
        await register("PRE", callback={"url": callback.url, "token": TOKEN}, order=1)
        await register("BEFORE", stage="start", command=f"echo words; echo '{adding('By a command.')}'")
        await register("PRE", command="echo only words", order=2)
        job = await services.run("cat", prompt="Mend it.", project_id=register.project, labels={"mine": "1"})
    assert job.state == SUCCEEDED, job.message
    told = (await services.output(job.execution_ids[0])).decode()
    assert told == "Mend it.\n\nBy HTTP.\n\nBy gRPC.\n\nBy a command."
    assert dict(job.spec.labels) == {"mine": "1", "team": "b", "kept": "é"}
    assert job.spec.prompt == "Mend it."
    shown = {
        stage.name: (stage.prompt_addition, dict(stage.labels)) for stage in job.timeline if "-hook-" in stage.name
    }
    assert shown == {
        "pre-hook-1": ("By HTTP.", {"team": "a", "kept": "é"}),
        "pre-hook-2": ("By gRPC.", {"team": "b"}),
        "pre-hook-3": ("", {}),
        "before-start-hook-1": ("By a command.", {}),
    }
    assert hook_calls(job)["pre-hook-2"][1].endswith(": answered: adds to the prompt and labels team")
    assert callback.tokens == [f"Bearer {TOKEN}"]
    (asked,) = callback.calls
    assert (asked.event, asked.stage, asked.job.job_id) == (hook_pb2.Hook.EVENT_PRE, "", job.job_id)
    assert asked.call_id == f"{job.execution_ids[0]}-pre-hook-2"


async def test_what_was_added_before_a_kill_is_told_after_it_once(services: Services, register: Hooks) -> None:
    answered = [
        Reply(200, adding("First.", a="1").encode()),
        Reply(is_silent=True),
        Reply(200, adding("Second.").encode()),
    ]
    async with receiver(*answered) as server:
        for order in range(2):
            await register.web("PRE", server.url, order=order, timeout=Duration(seconds=60))
        job = await services.submit("cat", prompt="Mend it.", project_id=register.project)
        await server.until(2)
        await killed_in_mid_call(services)
        ended = await services.ended(job.job_id)
    assert (await services.output(job.execution_ids[0])).decode() == "Mend it.\n\nFirst.\n\nSecond."
    assert dict(ended.spec.labels) == {"a": "1"}
    assert len(server.received) == 3


async def test_more_than_a_job_takes_is_a_failure_of_the_hook(services: Services, register: Hooks) -> None:
    long = adding("x" * (16 << 10))
    async with receiver(Reply(200, long.encode())) as server:
        for order in range(5):
            await register.web("PRE", server.url, failure_policy=IGNORE, order=order)
        job = await services.run("wc -c", prompt="Mend it.", project_id=register.project)
        whole = "x" * ((128 << 10) - 20)
        as_argument = {"command": {"line": "true", "prompt_delivery": "PROMPT_DELIVERY_ARGUMENT"}}
        large = await services.run("true", prompt=whole, project_id=register.project, agent=as_argument)
    went = hook_calls(job)
    assert [state for state, _ in went.values()] == [*[DONE] * 3, BROKEN, BROKEN], "64 KiB, with the breaks between"
    assert "longer than what the agent takes" in went["pre-hook-4"][1]
    assert large.state == SUCCEEDED, large.message
    assert all("longer than what the agent takes" in message for _, message in hook_calls(large).values())


async def test_too_many_labels_and_a_wrong_answer(services: Services, register: Hooks) -> None:
    await register("PRE", command=f"echo '{adding('', one='1')}'", failure_policy=IGNORE)
    full = {f"label-{number}": "" for number in range(64)}
    job = await services.run("true", project_id=register.project, labels=full)
    assert (job.state, hook_calls(job)["pre-hook-1"][0], dict(job.spec.labels)) == (SUCCEEDED, BROKEN, full)
    await register("BEFORE", stage="start", command="""echo '{"labels": 1}'""")
    job = await services.run("true", project_id=register.project)
    assert (job.state, job.reason) == (FAILED, "HOOK_FAILED")
    assert '"labels" that are not' in job.message


async def test_a_callback_may_veto_and_one_that_fails_does_what_its_policy_says(
    services: Services, register: Hooks
) -> None:
    async with callback_server(pb.CallHookResponse(), pb.CallHookResponse(veto={})) as server:
        hook = await register("PRE", callback={"url": server.url})
        assert len(hook.callback.token) >= 32, "one was made"
        assert (await services.run("true", project_id=register.project)).state == SUCCEEDED
        vetoed = await services.run("true", project_id=register.project)
    assert (vetoed.state, vetoed.reason) == (FAILED, "VETOED")
    assert server.tokens == [f"Bearer {hook.callback.token}"] * 2
    shown = (await services.hooks.GetHook(hook_pb2.GetHookRequest(hook_id=hook.hook_id))).hook
    assert (shown.callback.url, shown.callback.token) == (server.url, "")
    gone = await services.run("true", project_id=register.project)
    assert (gone.state, gone.reason) == (FAILED, "HOOK_FAILED")
    assert "answered UNAVAILABLE" in gone.message
    assert "at the last of 5 tries" in gone.message


async def history(services: Services, **wanted) -> list[hook_pb2.HookCall]:
    """Return the calls of hooks, the oldest first."""
    answer = await services.hooks.ListHookCalls(hook_pb2.ListHookCallsRequest(**wanted))
    return list(reversed(answer.calls))


async def test_calls_are_remembered_one_record_each(services: Services, register: Hooks) -> None:
    replies = [Reply(503), Reply(200, b"noted"), Reply(is_silent=True), Reply(200, b'{"allow": false, "reason": "no"}')]
    async with receiver(*replies) as server, callback_server(pb.CallHookResponse(note="hm")) as callback:
        hooks = [await register.web("PRE", server.url, order=order, timeout=Duration(seconds=60)) for order in range(2)]
        hooks.append(await register("ERROR", callback={"url": callback.url}))
        job = await services.submit("true", project_id=register.project)
        await server.until(3)
        (_, under_way) = await history(services, job_id=job.job_id)
        assert (under_way.state, under_way.times_begun) == (hook_pb2.HookCall.STATE_RUNNING, 1)
        await killed_in_mid_call(services)
        ended = await services.ended(job.job_id)
    assert (ended.reason, ended.message) == ("VETOED", "no")
    calls = await history(services, job_id=job.job_id)
    assert [call.hook_id for call in calls] == [hook.hook_id for hook in hooks]
    assert [call.call_id for call in calls] == [
        *[server.received[number].message_id for number in (1, 2)],
        callback.calls[0].call_id,
    ]
    states = [hook_pb2.HookCall.State.Name(call.state).removeprefix("STATE_") for call in calls]
    assert states == ["DONE", "VETOED", "DONE"]
    assert [(call.times_begun, call.tries) for call in calls] == [(1, 2), (2, 1), (1, 1)]
    assert [call.status for call in calls] == ["answered 200", "answered 200", "answered"]
    assert [call.answer for call in calls] == ["noted", '{"allow": false, "reason": "no"}', "hm"]
    assert all(call.end_time.ToNanoseconds() >= call.start_time.ToNanoseconds() for call in calls)
    vetoes = await history(services, project_id=register.project, states=[hook_pb2.HookCall.STATE_VETOED])
    assert vetoes == [calls[1]]


async def test_a_person_is_asked_where_a_hook_wants_it(services: Services, register: Hooks, remote: Repo) -> None:
    async with receiver(Reply(200, b'{"ask": "May this be pushed?"}')) as server:
        await register.web("BEFORE", server.url, stage="push", failure_policy=IGNORE)
        spec = await register.spec(remote)
        ended = []
        for verdict in ("Approve", "Reject"):
            job = await services.submit("touch new", **spec)
            asked = await services.asked(job.job_id)
            assert asked.question == "May this be pushed?"
            decide = getattr(checkpoint_pb2, f"{verdict}CheckpointRequest")
            words = {"reason": "no"} if verdict == "Reject" else {}
            answer = decide(checkpoint_id=asked.checkpoint_id, **words)
            await getattr(services.checkpoints, f"{verdict}Checkpoint")(answer)
            ended.append(await services.ended(job.job_id))
    assert [(job.state, job.reason, job.output.pushed) for job in ended] == [
        (SUCCEEDED, "", True),
        (FAILED, "REJECTED", False),
    ]
    assert len(server.received) == 2, "not asked again after the wait"
    await register("BEFORE", stage="take", command="""echo '{"ask": "Now?"}'""")
    job = await services.run("touch new", **spec)
    assert (job.state, job.reason) == (FAILED, "HOOK_FAILED")
    assert "where no job waits" in job.message


async def tried(services: Services, hook: hook_pb2.Hook, job_id: str = "") -> hook_pb2.DryRunHookResponse:
    request = hook_pb2.DryRunHookRequest(hook_id=hook.hook_id, job_id=job_id)
    return await services.hooks.DryRunHook(request, timeout=60)


async def test_a_hook_is_tried_out_and_nothing_changes(services: Services, register: Hooks, remote: Repo) -> None:
    job = await services.run("touch new", **await register.spec(remote), labels={"mine": "1"})
    added = json.dumps({"prompt_addition": "More.", "labels": {"a": "1"}, "ask": "Really?"}).encode()
    veto = pb.CallHookResponse(veto={"reason": "no"}, note="hm")
    async with receiver(Reply(200, added), Reply(503)) as server, callback_server(veto) as callback:
        hook = await register.web("BEFORE", server.url, stage="push", disabled=True)
        good = await tried(services, hook, job.job_id)
        down = await tried(services, hook)
        vetoed = await tried(services, await register("PRE", callback={"url": callback.url}))
    assert (good.outcome, good.status, good.prompt_addition) == (hook_pb2.HookCall.STATE_DONE, "answered 200", "More.")
    assert (dict(good.labels), good.ask, good.answer) == ({"a": "1"}, "Really?", added.decode())
    told = server.received[0].json
    server.received[0].check()
    assert (told["type"], told["data"]["stage"], told["data"]["job"]["jobId"]) == ("job.before", "push", job.job_id)
    assert server.received[0].message_id == good.call_id
    assert (down.outcome, down.status) == (hook_pb2.HookCall.STATE_FAILED, "answered 503")
    assert len(server.received) == 2, "tried once"
    assert (vetoed.outcome, vetoed.veto_reason) == (hook_pb2.HookCall.STATE_VETOED, "no")
    assert callback.calls[0].job.job_id == "job-sample"
    assert await services.job(job.job_id) == job
    assert await history(services, project_id=register.project) == []


async def test_a_command_is_tried_out_and_leaves_nothing(services: Services, register: Hooks) -> None:
    line = 'echo "$BOATYARD_HOOK_EVENT"; ls -A; grep -q STATE_FAILED && echo told'
    good = await tried(services, await register("ERROR", command=line))
    assert (good.outcome, good.status, good.answer) == (hook_pb2.HookCall.STATE_DONE, "exited with code 0", "told")
    bad = await tried(services, await register("PRE", command="echo not so; exit 3"))
    assert (bad.outcome, bad.veto_reason) == (hook_pb2.HookCall.STATE_VETOED, "not so")
    slow = await register("POST", command="sleep 60", timeout=Duration(nanos=200_000_000))
    late = await tried(services, slow)
    assert (late.outcome, late.status.split(":")[0]) == (hook_pb2.HookCall.STATE_FAILED, "ended with TIMED_OUT")
    assert 0 < late.duration.ToNanoseconds() < 50e9
    left = [path.name for path in services.root.rglob("ws-dryrun-*")]
    assert left == []


async def test_the_example_tells_agents_the_rules_and_guards_what_is_pushed(
    services: Services, register: Hooks, remote: Repo, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    example = [sys.executable, "examples/hooks/callback_server.py", "--listen", "127.0.0.1:0"]
    options = ["--token-file", tmp_path / "token", "--rules", "Write a test.", "--protected", "ci/"]
    server = subprocess.Popen([*example, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = (await asyncio.to_thread(server.stdout.readline)).split()[-1]
        calls = {"callback": {"url": f"http://{address}", "token": TOKEN}}
        await register("PRE", **calls)
        await register("BEFORE", stage="push", **calls)
        spec = await register.spec(remote)
        good = await services.run("cat > told", **spec)
        bad = await services.run("mkdir ci; touch ci/deploy", **spec)
        await register("PRE", callback={"url": f"http://{address}", "token": TOKEN[::-1]})
        stranger = await services.run("true", **spec)
    finally:
        server.send_signal(signal.SIGTERM)
        rest, _ = server.communicate(timeout=20)
    assert server.returncode == 0
    assert good.state == SUCCEEDED, good.message
    assert remote.git("show", f"boatyard/{good.job_id}:told") == "Do it.\n\nWrite a test."
    assert good.spec.labels["rules"] == "told"
    assert (bad.reason, bad.message, bad.output.pushed) == ("VETOED", "agents do not change ci/deploy", False)
    assert "UNAUTHENTICATED: this is not the token of the hook" in stranger.message
    assert len(rest.splitlines()) == 5, "one line a call"
