"""The catalogue as its callers have it: what comes back, and what each refusal says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from boatyard.agent.v1 import model_pb2, sandbox_pb2
from boatyard.agent.v1.agent_pb2 import AgentSettings, CommandEngine
from boatyard.gateway.v1 import catalog_pb2 as pb
from boatyard.gateway.v1 import policy_pb2
from google.protobuf.duration_pb2 import Duration

from services.common.errors import AlreadyExists, Invalid, NotFound, Unauthenticated
from tests.kit.catalog import Stubs, refusal, serving_catalog
from tests.kit.certificates import Authority

AGENT = AgentSettings(
    command=CommandEngine(line="make it so"),
    environment={"A": "1"},
    timeout=Duration(seconds=90),
    sandbox_tier=sandbox_pb2.SANDBOX_TIER_NONE,
)
POLICY = policy_pb2.Policy(verify_command="make test", publish=policy_pb2.Policy.PUBLISH_NONE)
KINDS = ["project", "repository", "template", "worker", "work_item", "provider"]
PLURALS = {"repository": "repositories"}


@pytest_asyncio.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with serving_catalog(tmp_path) as stubs:
        yield stubs


def camel(kind: str) -> str:
    return kind.title().replace("_", "")


async def create(stubs: Stubs, kind: str, request_id: str = "", **fields):
    message = getattr(pb, camel(kind))(**fields)
    request = getattr(pb, f"Create{camel(kind)}Request")(request_id=request_id, **{kind: message})
    return getattr(await getattr(stubs.catalog, f"Create{camel(kind)}")(request), kind)


async def get(stubs: Stubs, kind: str, thing_id: str):
    request = getattr(pb, f"Get{camel(kind)}Request")(**{f"{kind}_id": thing_id})
    return getattr(await getattr(stubs.catalog, f"Get{camel(kind)}")(request), kind)


async def pages(stubs: Stubs, kind: str, **fields):
    """Give each page of a list."""
    plural = PLURALS.get(kind, f"{kind}s")
    token = ""
    while True:
        request = getattr(pb, f"List{camel(plural)}Request")(page_token=token, **fields)
        response = await getattr(stubs.catalog, f"List{camel(plural)}")(request)
        yield list(getattr(response, plural))
        token = response.next_page_token
        if not token:
            return


async def listed(stubs: Stubs, kind: str, **fields) -> list[str]:
    return [getattr(thing, f"{kind}_id") async for page in pages(stubs, kind, **fields) for thing in page]


async def make_one_of_each(stubs: Stubs) -> dict[str, object]:
    return {
        "project": await create(stubs, "project", project_id="harbour", display_name="The harbour ⚓"),
        "repository": await create(
            stubs,
            "repository",
            repository_id="boats",
            url="https://example.com/boats.git",
            default_revision="café",
            token="hunter2",
        ),
        "template": await create(stubs, "template", template_id="kind", agent=AGENT, policy=POLICY),
        "worker": await create(stubs, "worker", worker_id="ann", template_id="kind", agent=AGENT, policy=POLICY),
        "work_item": await create(
            stubs, "work_item", work_item_id="leak", title="A leak", notes=["wet"], repository_id="boats"
        ),
        "provider": await create(
            stubs,
            "provider",
            provider_id="claude",
            project_id="default",
            wire=model_pb2.MODEL_WIRE_MESSAGES,
            base_url="https://api.example.com",
            keys=["sk-hunter2"],
            aliases={"fast": "small-1"},
            models=["small-1"],
            order=-1,
            for_coordinators=True,
        ),
    }


async def test_what_is_created_is_got_and_listed_as_it_is(stubs: Stubs) -> None:
    made = await make_one_of_each(stubs)
    for kind in KINDS:
        thing_id = getattr(made[kind], f"{kind}_id")
        assert await get(stubs, kind, thing_id) == made[kind]
        (page,) = [page async for page in pages(stubs, kind)]
        assert page[0] == made[kind]
        assert made[kind].create_time.seconds > 1_700_000_000
    assert made["template"].agent == AGENT
    assert made["worker"].policy == POLICY
    assert {made[kind].project_id for kind in KINDS[1:]} == {"default"}
    assert made["worker"].display_name == "ann", "the id, without a name of its own"
    assert made["work_item"].state == pb.WorkItem.STATE_TODO
    assert await listed(stubs, "project") == ["harbour", "default"], "the newest first"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"ca": "no certificate"}, "repository.ca"),
        ({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "repository.ca"),
        ({"ca": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "repository.ca"),
        ({"ca": "CA", "url": "git@example.com:a/b"}, "repository.ca"),
        ({"push_options": ["two\nlines"]}, "repository.push_options[0]"),
        ({"push_options": [""]}, "repository.push_options[0]"),
        ({"push_options": ["x"] * 17}, "repository.push_options"),
        ({"push_options": ["ok", "ci.variable=T=ghp" + "_" + "a1B2" * 9]}, "repository.push_options[1]"),
    ],
)
async def test_what_a_repositorys_server_needs_is_checked(
    stubs: Stubs, tmp_path: Path, fields: dict[str, Any], path: str
) -> None:
    ca = Authority(tmp_path).file.read_text()
    url = fields.pop("url", "https://example.com/a")
    good = await create(stubs, "repository", url="https://example.com/a", ca=ca, push_options=["ci.skip", "x=a b"])
    assert (await get(stubs, "repository", good.repository_id)) == good
    assert (good.ca, list(good.push_options)) == (ca, ["ci.skip", "x=a b"])
    wanted = {name: ca if value == "CA" else value for name, value in fields.items()}
    refused = await refusal(create(stubs, "repository", url=url, **wanted), Invalid)
    assert [field for field, _ in refused.violations] == [path]


async def test_an_id_is_made_where_none_is_chosen(stubs: Stubs) -> None:
    first, second = [await create(stubs, "work_item", title="x") for _ in range(2)]
    assert first.work_item_id != second.work_item_id
    assert await listed(stubs, "work_item") == [second.work_item_id, first.work_item_id]


async def test_a_token_is_never_shown(stubs: Stubs, capfd: pytest.CaptureFixture[str]) -> None:
    made = (await make_one_of_each(stubs))["repository"]
    assert (made.has_token, made.token) == (True, "")
    got = await get(stubs, "repository", "boats")
    assert (got.has_token, got.token) == (True, "")
    again = await refusal(
        create(stubs, "repository", repository_id="boats", url="https://example.com/b", token="hunter2"), AlreadyExists
    )
    without = await create(stubs, "repository", url="https://example.com/b")
    assert not without.has_token
    output = capfd.readouterr()
    assert "hunter2" not in again.message + str(again.metadata) + output.out + output.err


async def test_a_password_in_a_url_is_refused_and_not_repeated(stubs: Stubs, capfd: pytest.CaptureFixture[str]) -> None:
    error = await refusal(create(stubs, "repository", url="https://me:hunter2@example.com/p"), Invalid)
    assert [field for field, _ in error.violations] == ["repository.url"]
    output = capfd.readouterr()
    assert "hunter2" not in error.message + str(error.metadata) + output.out + output.err


async def test_the_same_request_is_answered_again(stubs: Stubs) -> None:
    first = await create(stubs, "repository", request_id="once", url="https://example.com/p", token="t")
    assert await create(stubs, "repository", request_id="once", url="https://example.com/p", token="t") == first
    for kind, fields in [
        ("repository", {"url": "https://example.com/p", "token": "u"}),
        ("repository", {"url": "https://example.com/q", "token": "t"}),
        ("work_item", {"title": "of the same project"}),
    ]:
        error = await refusal(create(stubs, kind, request_id="once", **fields), AlreadyExists)
        assert (error.reason, error.resource_name) == ("REQUEST_ID_REUSED", "once")
    assert len(await listed(stubs, "repository")) == 1


async def test_an_id_is_taken_once(stubs: Stubs) -> None:
    await make_one_of_each(stubs)
    for kind, fields in {
        "project": {"project_id": "default"},
        "repository": {"repository_id": "boats", "url": "/srv/boats"},
        "template": {"template_id": "kind"},
        "worker": {"worker_id": "ann"},
        "work_item": {"work_item_id": "leak", "title": "x"},
    }.items():
        error = await refusal(create(stubs, kind, **fields), AlreadyExists)
        assert error.reason == f"{kind.upper()}_EXISTS"
        assert (error.resource_type, error.resource_name) == (kind.replace("_", " "), fields[f"{kind}_id"])


async def test_what_is_not_there_is_named(stubs: Stubs) -> None:
    await make_one_of_each(stubs)
    for kind in KINDS:
        error = await refusal(get(stubs, kind, "nobody"), NotFound)
        assert error.reason == f"{kind.upper()}_NOT_FOUND"
        assert (error.resource_type, error.resource_name) == (kind.replace("_", " "), "nobody")
    for kind, fields, reason in [
        ("repository", {"url": "/srv/p", "project_id": "nowhere"}, "PROJECT_NOT_FOUND"),
        ("worker", {"template_id": "kind", "project_id": "harbour"}, "TEMPLATE_NOT_FOUND"),
        ("work_item", {"title": "x", "repository_id": "nothing"}, "REPOSITORY_NOT_FOUND"),
        ("work_item", {"title": "x", "related_work_item_ids": ["leak", "nothing"]}, "WORK_ITEM_NOT_FOUND"),
    ]:
        assert (await refusal(create(stubs, kind, **fields), NotFound)).reason == reason


BAD = [
    ("project", {"project_id": "No", "display_name": "a\nb"}, {"project.project_id", "project.display_name"}),
    (
        "repository",
        {
            "repository_id": "-x",
            "project_id": "No",
            "url": "ftp://example.com/x",
            "token": "a b",
            "default_revision": b"-x",
        },
        {f"repository.{name}" for name in ("repository_id", "project_id", "url", "token", "default_revision")},
    ),
    ("template", {"display_name": "x" * 256}, {"template.display_name"}),
    (
        "worker",
        {"worker_id": "x" * 64, "template_id": "No", "display_name": "<>"},
        {f"worker.{name}" for name in ("worker_id", "template_id", "display_name")},
    ),
    (
        "work_item",
        {
            "title": " ",
            "description": "x" * (256 * 1024 + 1),
            "notes": ["x" * 2622] * 100,
            "related_work_item_ids": ["a", ""],
            "repository_id": "No",
        },
        {
            f"work_item.{name}"
            for name in ("title", "description", "notes", "related_work_item_ids[1]", "repository_id")
        },
    ),
]


async def test_all_that_is_wrong_with_settings_is_told_at_once(stubs: Stubs) -> None:
    agent = AgentSettings(command=CommandEngine(line="\0"), network=9)
    policy = policy_pb2.Policy(verify_timeout=Duration(seconds=86401), publish=9, retention=9)
    error = await refusal(create(stubs, "template", agent=agent, policy=policy), Invalid)
    names = ("agent.command.line", "agent.network", "policy.verify_timeout", "policy.publish", "policy.retention")
    assert {field for field, _ in error.violations} == {f"template.{name}" for name in names}


@pytest.mark.parametrize(("kind", "fields", "violated"), BAD)
async def test_all_that_is_wrong_is_told_at_once(stubs: Stubs, kind: str, fields: dict, violated: set[str]) -> None:
    error = await refusal(create(stubs, kind, request_id="no good", **fields), Invalid)
    assert error.reason == "INVALID_FIELDS"
    assert {field for field, _ in error.violations} == violated | {"request_id"}
    assert await listed(stubs, kind) == (["default"] if kind == "project" else []), "nothing is half done"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_missing_is_told(stubs: Stubs, kind: str) -> None:
    method = getattr(stubs.catalog, f"Create{camel(kind)}")
    error = await refusal(method(getattr(pb, f"Create{camel(kind)}Request")()), Invalid)
    assert (kind, "is required") in error.violations
    for thing_id, said in [("", "required"), ("No", "must be")]:
        ((field, text),) = (await refusal(get(stubs, kind, thing_id), Invalid)).violations
        assert field == f"{kind}_id"
        assert said in text


async def test_very_many_violations_still_reach_the_caller(stubs: Stubs) -> None:
    error = await refusal(create(stubs, "work_item", title="x", related_work_item_ids=["No"] * 100), Invalid)
    assert "more" in error.violations[-1][1]


async def test_the_largest_work_item_is_taken(stubs: Stubs) -> None:
    await create(stubs, "work_item", title="x" * 255, description="x" * 256 * 1024, notes=["x" * 2621] * 100)


@pytest.mark.parametrize("kind", KINDS)
async def test_pages_cover_everything_once(stubs: Stubs, kind: str) -> None:
    of_each = [
        {
            "repository": {"url": f"/srv/{number}"},
            "work_item": {"title": "x"},
            "provider": {"wire": model_pb2.MODEL_WIRE_CHAT, "base_url": "https://api.example.com", "order": -number},
        }.get(kind, {})
        for number in range(5)
    ]
    made = [getattr(await create(stubs, kind, **fields), f"{kind}_id") for fields in of_each]
    sizes = [len(page) async for page in pages(stubs, kind, page_size=2)]
    assert sizes == ([2, 2, 2] if kind == "project" else [2, 2, 1])
    found = await listed(stubs, kind, page_size=2)
    assert [one for one in found if one != "default"] == made[::-1]


async def test_a_list_of_large_things_comes_in_shorter_pages(stubs: Stubs) -> None:
    for number in range(12):
        await create(stubs, "work_item", work_item_id=f"w{number}", title="x", description="é" * 128 * 1024)
    found = [page async for page in pages(stubs, "work_item")]
    assert len(found) > 1, "3 MiB and more"
    assert [item.work_item_id for page in found for item in page] == [f"w{number}" for number in reversed(range(12))]


async def test_filters_narrow_and_bind_their_tokens(stubs: Stubs) -> None:
    await create(stubs, "project", project_id="harbour")
    for number in range(2):
        await create(stubs, "repository", repository_id=f"r{number}", url=f"/srv/{number}")
    await create(stubs, "repository", repository_id="other", url="/srv/0", project_id="harbour")
    again = create(stubs, "repository", repository_id="r2", url="file:///srv/0/")
    assert (await refusal(again, AlreadyExists)).resource_name == "r0"
    assert await listed(stubs, "repository", url="/srv/0", page_size=1) == ["r0", "other"]
    assert await listed(stubs, "repository", url="/srv/0", project_id="default") == ["r0"]
    assert await listed(stubs, "repository", project_id="nowhere") == []
    await create(stubs, "work_item", work_item_id="w", title="x")
    assert await listed(stubs, "work_item", states=[pb.WorkItem.STATE_TODO, pb.WorkItem.STATE_DONE]) == ["w"]
    assert await listed(stubs, "work_item", states=[pb.WorkItem.STATE_DONE]) == []

    token = (await stubs.catalog.ListRepositories(pb.ListRepositoriesRequest(page_size=1))).next_page_token
    for request in (
        pb.ListRepositoriesRequest(url="/srv/0", page_token=token),
        pb.ListRepositoriesRequest(page_token="rubbish"),
    ):
        error = await refusal(stubs.catalog.ListRepositories(request), Invalid)
        assert [field for field, _ in error.violations] == ["page_token"]
    error = await refusal(stubs.catalog.ListTemplates(pb.ListTemplatesRequest(page_token=token)), Invalid)
    assert [field for field, _ in error.violations] == ["page_token"]
    bad = pb.ListWorkItemsRequest(project_id="No", states=[0, 9], page_size=-1, page_token="x")
    error = await refusal(stubs.catalog.ListWorkItems(bad), Invalid)
    assert {field for field, _ in error.violations} == {
        "project_id",
        "states[0]",
        "states[1]",
        "page_size",
        "page_token",
    }


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with serving_catalog(tmp_path) as stubs:
        made = await make_one_of_each(stubs)
    async with serving_catalog(tmp_path) as stubs:
        for kind in KINDS:
            assert await get(stubs, kind, getattr(made[kind], f"{kind}_id")) == made[kind]


async def test_nobody_gets_in_without_a_token(tmp_path: Path) -> None:
    async with serving_catalog(tmp_path, token=None) as stubs:
        for kind in KINDS:
            assert (await refusal(get(stubs, kind, "x"), Unauthenticated)).reason == "TOKEN_REQUIRED"
