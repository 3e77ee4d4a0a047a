"""Hooks as their callers have them."""

from collections.abc import AsyncIterator
from pathlib import Path

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
    return (await stubs.hooks.RegisterHook(pb.RegisterHookRequest(request_id=request_id, hook=hook))).hook


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
        await stubs.hooks.UnregisterHook(pb.UnregisterHookRequest(hook_id=second.hook_id))
        assert await listed(stubs, project_id="default") == [first.hook_id, third.hook_id]


async def test_a_list_of_large_hooks_comes_in_shorter_pages(stubs: Stubs) -> None:
    made = [(await register(stubs, command="x" * 65536)).hook_id for _ in range(70)]
    assert await listed(stubs, page_size=1000) == made, "4 MiB and more"


async def test_the_same_request_is_answered_again(stubs: Stubs) -> None:
    first = await register(stubs, request_id="once")
    await stubs.hooks.UnregisterHook(pb.UnregisterHookRequest(hook_id=first.hook_id))
    assert await register(stubs, request_id="once") == first
    assert await listed(stubs) == [], "an answer given again registers nothing again"
    error = await refusal(register(stubs, request_id="once", order=1), AlreadyExists)
    assert error.reason == "REQUEST_ID_REUSED"


async def test_refusals(stubs: Stubs) -> None:
    error = await refusal(register(stubs, project_id="nowhere"), NotFound)
    assert (error.reason, error.resource_name) == ("PROJECT_NOT_FOUND", "nowhere")
    error = await refusal(stubs.hooks.UnregisterHook(pb.UnregisterHookRequest(hook_id="nobody")), NotFound)
    assert (error.reason, error.resource_type) == ("HOOK_NOT_FOUND", "hook")
    bad = register(
        stubs, request_id="é", project_id="No", event=pb.Hook.EVENT_UNSPECIFIED, command=" ", timeout=Duration()
    )
    violated = {"request_id", "hook.project_id", "hook.event", "hook.command", "hook.timeout"}
    assert {field for field, _ in (await refusal(bad, Invalid)).violations} == violated
    for call, fields in [
        (stubs.hooks.RegisterHook(pb.RegisterHookRequest()), {"hook", "hook.event", "hook.command"}),
        (register(stubs, command="x" * 65537, timeout=Duration(seconds=601)), {"hook.command", "hook.timeout"}),
        (stubs.hooks.UnregisterHook(pb.UnregisterHookRequest()), {"hook_id"}),
        (stubs.hooks.ListHooks(pb.ListHooksRequest(project_id="No", page_size=-1)), {"project_id", "page_size"}),
    ]:
        assert {field for field, _ in (await refusal(call, Invalid)).violations} == fields
    assert await listed(stubs) == []


async def test_a_webhook_s_secret_is_shown_once(stubs: Stubs) -> None:
    hook = pb.Hook(event=pb.Hook.EVENT_POST, webhook={"url": "https://example.com/hook"})
    request = pb.RegisterHookRequest(request_id="once", hook=hook)
    made = (await stubs.hooks.RegisterHook(request)).hook
    assert made.webhook.secret.startswith("whsec_")
    assert made.failure_policy == pb.Hook.FAILURE_POLICY_IGNORE
    assert (await stubs.hooks.RegisterHook(request)).hook == made, "its answer may have been lost"
    (shown,) = (await stubs.hooks.ListHooks(pb.ListHooksRequest())).hooks
    assert (shown.webhook.url, shown.webhook.secret) == ("https://example.com/hook", "")
    given = "whsec_" + "QUFB" * 8
    hook.webhook.secret = given
    assert (await stubs.hooks.RegisterHook(pb.RegisterHookRequest(hook=hook))).hook.webhook.secret == given


async def test_webhooks_that_are_refused(stubs: Stubs) -> None:
    for webhook, event, policy, violated in [
        ({}, "POST", 0, "hook.webhook.url"),
        ({"url": "http://example.com/"}, "POST", 0, "hook.webhook.url"),
        ({"url": "https://127.0.0.1/"}, "POST", 0, "hook.webhook.url"),
        ({"url": "https://example.com/", "secret": "whsec_short"}, "POST", 0, "hook.webhook.secret"),
        ({"url": "https://example.com/"}, "ERROR", pb.Hook.FAILURE_POLICY_FAIL, "hook.failure_policy"),
    ]:
        hook = pb.Hook(event=f"EVENT_{event}", webhook=webhook, failure_policy=policy)
        error = await refusal(stubs.hooks.RegisterHook(pb.RegisterHookRequest(hook=hook)), Invalid)
        assert [field for field, _ in error.violations] == [violated]
        assert "whsec_short" not in error.message
