"""Hooks as their callers have them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.gateway.v1 import catalog_pb2
from boatyard.gateway.v1 import hook_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.errors import AlreadyExists, Invalid, NotFound
from tests.kit.catalog import Stubs, refusal, serving_catalog


@pytest_asyncio.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with serving_catalog(tmp_path) as stubs:
        yield stubs


async def register(stubs: Stubs, request_id: str = "", **fields) -> pb.Hook:
    hook = pb.Hook(**{"event": pb.Hook.EVENT_PRE, "command": "true", **fields})
    return (await stubs.hooks.CreateHook(pb.CreateHookRequest(request_id=request_id, hook=hook))).hook


async def listed(stubs: Stubs, **fields) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        response = await stubs.hooks.ListHooks(pb.ListHooksRequest(page_token=token, **fields))
        found += [hook.hook_id for hook in response.hooks]
        token = response.next_page_token
        if not token:
            return found


async def test_hooks_are_listed_in_the_order_of_their_calls(stubs: Stubs) -> None:
    await stubs.catalog.CreateProject(catalog_pb2.CreateProjectRequest(project={"project_id": "harbour"}))
    second = await register(stubs)
    third = await register(stubs, timeout=Duration(seconds=600))
    first = await register(stubs, order=-1, command="echo no >&2; exit 1")
    elsewhere = await register(stubs, project_id="harbour")
    assert (second.project_id, second.timeout.seconds, third.timeout.seconds) == ("default", 30, 600)
    in_order = [first.hook_id, second.hook_id, third.hook_id]
    assert await listed(stubs, project_id="default", page_size=1) == in_order
    assert await listed(stubs, project_id="harbour") == [elsewhere.hook_id]
    assert await listed(stubs) == [*in_order, elsewhere.hook_id]

    for _ in range(2):  # the second changes nothing, as a retry after a lost answer must not
        await stubs.hooks.DeleteHook(pb.DeleteHookRequest(hook_id=second.hook_id))
        assert await listed(stubs, project_id="default") == [first.hook_id, third.hook_id]


async def test_the_hooks_of_a_project_are_those_that_its_jobs_call(stubs: Stubs) -> None:
    await stubs.catalog.CreateProject(catalog_pb2.CreateProjectRequest(project={"project_id": "harbour"}))
    own = await register(stubs)
    everywhere = await register(stubs, all_projects=True)
    elsewhere = await register(stubs, project_id="harbour")
    assert (everywhere.all_projects, everywhere.project_id) == (True, "")
    assert await listed(stubs, project_id="default") == [own.hook_id, everywhere.hook_id]
    assert await listed(stubs, project_id="harbour") == [everywhere.hook_id, elsewhere.hook_id]


async def test_a_hook_is_changed_in_what_the_mask_names(stubs: Stubs) -> None:
    hook = pb.Hook(event="EVENT_BEFORE", stage="push", webhook={"url": "https://example.com/a"}, kinds=["task"])
    made = (await stubs.hooks.CreateHook(pb.CreateHookRequest(hook=hook))).hook
    assert made.failure_policy == pb.Hook.FAILURE_POLICY_FAIL, "a guard that cannot be asked must not count as a yes"

    async def updated(*paths: str, **fields) -> pb.Hook:
        change = pb.Hook(hook_id=made.hook_id, **fields)
        return (await stubs.hooks.UpdateHook(pb.UpdateHookRequest(hook=change, update_mask={"paths": paths}))).hook

    changed = await updated("webhook.url", "disabled", "kinds", webhook={"url": "https://example.com/b"}, disabled=True)
    expected = pb.Hook()
    expected.CopyFrom(made)
    expected.webhook.url, expected.webhook.secret, expected.disabled = "https://example.com/b", "", True
    del expected.kinds[:]
    assert changed == expected, "all else as it was, and its secret not shown"
    assert await updated("timeout", "order", order=3) == pb.Hook.FromString(
        expected.SerializeToString() + pb.Hook(order=3).SerializeToString()
    ), "what the message has not is the default again"
    new = await updated("webhook", webhook={"url": "https://example.com/c"})
    assert new.webhook.secret.startswith("whsec_")
    assert new.webhook.secret != made.webhook.secret
    assert (await updated("command", command="true")).WhichOneof("action") == "command"
    shown = await stubs.hooks.GetHook(pb.GetHookRequest(hook_id=made.hook_id))
    assert (shown.hook.command, shown.hook.disabled, shown.hook.order) == ("true", True, 3)


async def test_a_list_of_large_hooks_comes_in_shorter_pages(stubs: Stubs) -> None:
    made = [(await register(stubs, command="x" * 65536)).hook_id for _ in range(70)]
    assert await listed(stubs, page_size=1000) == made, "4 MiB and more"


async def test_the_same_request_is_answered_again(stubs: Stubs) -> None:
    first = await register(stubs, request_id="once")
    await stubs.hooks.DeleteHook(pb.DeleteHookRequest(hook_id=first.hook_id))
    assert await register(stubs, request_id="once") == first
    assert await listed(stubs) == [], "an answer given again registers nothing again"
    error = await refusal(register(stubs, request_id="once", order=1), AlreadyExists)
    assert error.reason == "REQUEST_ID_REUSED"


async def test_refusals(stubs: Stubs) -> None:
    error = await refusal(register(stubs, project_id="nowhere"), NotFound)
    assert (error.reason, error.resource_name) == ("PROJECT_NOT_FOUND", "nowhere")
    error = await refusal(stubs.hooks.DeleteHook(pb.DeleteHookRequest(hook_id="nobody")), NotFound)
    assert (error.reason, error.resource_type) == ("HOOK_NOT_FOUND", "hook")
    bad = register(
        stubs, request_id="é", project_id="No", event=pb.Hook.EVENT_UNSPECIFIED, command=" ", timeout=Duration()
    )
    violated = {"request_id", "hook.project_id", "hook.event", "hook.command", "hook.timeout"}
    assert {field for field, _ in (await refusal(bad, Invalid)).violations} == violated
    for call, fields in [
        (stubs.hooks.CreateHook(pb.CreateHookRequest()), {"hook", "hook.event", "hook.command"}),
        (register(stubs, command="x" * 65537, timeout=Duration(seconds=601)), {"hook.command", "hook.timeout"}),
        (stubs.hooks.DeleteHook(pb.DeleteHookRequest()), {"hook_id"}),
        (stubs.hooks.ListHooks(pb.ListHooksRequest(project_id="No", page_size=-1)), {"project_id", "page_size"}),
    ]:
        assert {field for field, _ in (await refusal(call, Invalid)).violations} == fields
    assert await listed(stubs) == []


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({"timeout": Duration(nanos=1)}, "hook.timeout"),
        ({"event": "EVENT_BEFORE"}, "hook.stage"),
        ({"event": "EVENT_BEFORE", "stage": "agent"}, "hook.stage"),
        ({"event": "EVENT_AFTER", "stage": "start"}, "hook.stage"),
        ({"event": "EVENT_POST", "stage": "push"}, "hook.stage"),
        ({"all_projects": True, "project_id": "default"}, "hook.all_projects"),
        ({"kinds": ["No kind"]}, "hook.kinds[0]"),
        ({"template_ids": [""]}, "hook.template_ids[0]"),
        ({"kinds": ["task"] * 65}, "hook.kinds"),
    ],
)
async def test_no_hook_is_registered_that_would_never_be_called(stubs: Stubs, fields: dict, violated: str) -> None:
    error = await refusal(register(stubs, **fields), Invalid)
    assert [field for field, _ in error.violations] == [violated]


async def test_refused_changes(stubs: Stubs) -> None:
    made = await register(stubs)

    async def refused(kind: type, *paths: str, **fields) -> object:
        change = pb.Hook(**{"hook_id": made.hook_id, **fields})
        request = pb.UpdateHookRequest(hook=change, update_mask={"paths": paths})
        return await refusal(stubs.hooks.UpdateHook(request), kind)

    for paths, violated in [
        (["event", "stage", "project_id", "all_projects", "hook_id", "create_time"], ["update_mask"] * 6),
        (["nothing", "webhook.nothing"], ["update_mask"] * 2),
        ([], ["update_mask"]),
        (["command"], ["hook.command"]),
    ]:
        error = await refused(Invalid, *paths)
        assert [field for field, _ in error.violations] == violated, paths
    error = await refused(Invalid, "webhook.url", webhook=pb.Webhook())
    assert [field for field, _ in error.violations] == ["hook.webhook.url"]
    assert (await refused(NotFound, "order", hook_id="nobody")).reason == "HOOK_NOT_FOUND"
    assert (await refused(NotFound, "template_ids", template_ids=["none"])).reason == "TEMPLATE_NOT_FOUND"
    error = await refusal(register(stubs, template_ids=["none"]), NotFound)
    assert error.reason == "TEMPLATE_NOT_FOUND"
    for request, reason in [
        (pb.DryRunHookRequest(hook_id="nobody"), "HOOK_NOT_FOUND"),
        (pb.DryRunHookRequest(hook_id=made.hook_id, job_id="nothing"), "JOB_NOT_FOUND"),
    ]:
        assert (await refusal(stubs.hooks.DryRunHook(request), NotFound)).reason == reason
    error = await refusal(stubs.hooks.DryRunHook(pb.DryRunHookRequest(job_id="No id")), Invalid)
    assert {field for field, _ in error.violations} == {"hook_id", "job_id"}
    wrong = pb.ListHookCallsRequest(project_id="No", hook_id="No", job_id="No", page_size=-1, page_token="x")
    error = await refusal(stubs.hooks.ListHookCalls(wrong), Invalid)
    assert {field for field, _ in error.violations} == {"project_id", "hook_id", "job_id", "page_size", "page_token"}
    await stubs.hooks.DeleteHook(pb.DeleteHookRequest(hook_id=made.hook_id))
    assert (await refused(NotFound, "order")).reason == "HOOK_NOT_FOUND"
    error = await refusal(stubs.hooks.GetHook(pb.GetHookRequest(hook_id=made.hook_id)), NotFound)
    assert error.reason == "HOOK_NOT_FOUND"


async def test_a_webhook_s_secret_is_shown_once(stubs: Stubs) -> None:
    hook = pb.Hook(event=pb.Hook.EVENT_POST, webhook={"url": "https://example.com/hook"})
    request = pb.CreateHookRequest(request_id="once", hook=hook)
    made = (await stubs.hooks.CreateHook(request)).hook
    assert made.webhook.secret.startswith("whsec_")
    assert made.failure_policy == pb.Hook.FAILURE_POLICY_IGNORE
    assert (await stubs.hooks.CreateHook(request)).hook == made, "its answer may have been lost"
    (shown,) = (await stubs.hooks.ListHooks(pb.ListHooksRequest())).hooks
    assert (shown.webhook.url, shown.webhook.secret) == ("https://example.com/hook", "")
    given = "whsec_" + "QUFB" * 8
    hook.webhook.secret = given
    assert (await stubs.hooks.CreateHook(pb.CreateHookRequest(hook=hook))).hook.webhook.secret == given


async def test_webhooks_that_are_refused(stubs: Stubs) -> None:
    for webhook, event, policy, violated in [
        ({}, "POST", 0, "hook.webhook.url"),
        ({"url": "http://example.com/"}, "POST", 0, "hook.webhook.url"),
        ({"url": "https://127.0.0.1/"}, "POST", 0, "hook.webhook.url"),
        ({"url": "https://example.com/", "secret": "whsec_short"}, "POST", 0, "hook.webhook.secret"),
        ({"url": "https://example.com/"}, "ERROR", pb.Hook.FAILURE_POLICY_FAIL, "hook.failure_policy"),
    ]:
        hook = pb.Hook(event=f"EVENT_{event}", webhook=webhook, failure_policy=policy)
        error = await refusal(stubs.hooks.CreateHook(pb.CreateHookRequest(hook=hook)), Invalid)
        assert [field for field, _ in error.violations] == [violated]
        assert "whsec_short" not in error.message
