"""What a submission becomes: merged settings, the text of a work item, and what shows only when all is merged."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.agent.settings import DEFAULTS, AgentSettings, AnthropicEngine, CommandEngine, PromptDelivery
from services.agent.wire import AGENT
from services.common.db.engine import sqlite_url
from services.common.errors import Invalid, NotFound
from services.gateway.catalog.store import PROJECTS, REPOSITORIES, TEMPLATES, WORK_ITEMS, WORKERS, CatalogStore
from services.gateway.values.catalog import Project, Repository, Template, Worker, WorkItem
from services.gateway.values.principal import OURSELVES, Principal, Role, set_current_principal
from services.gateway.wire.policy import POLICY
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.policy import DEFAULT_POLICY, Checkpoints, Policy, complete_policy
from services.lifecycle.model.states import Publish
from services.sandbox.spec import Tier
from tests.kit.ledger import Books, books

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Books]:
    async with books(sqlite_url(tmp_path / "gateway.db")) as opened:
        catalog = CatalogStore(opened.engine)
        await catalog.create(PROJECTS, Project(project_id="other", create_time=NOW))
        settings = AgentSettings(engine=CommandEngine(line="lower"), model="small", environment={"A": "1", "B": "1"})
        policy = Policy(verify_command="make test", publish=Publish.NONE)
        everyday = {"project_id": "default", "create_time": NOW}
        await catalog.create(TEMPLATES, Template(template_id="template", agent=settings, policy=policy, **everyday))
        over = AgentSettings(model="large", environment={"B": "2"}, timeout=timedelta(seconds=5))
        worker = Worker(worker_id="ada", display_name="Ada", template_id="template", agent=over, **everyday)
        await catalog.create(WORKERS, worker)
        url = "https://example.invalid/x.git"
        await catalog.create(
            REPOSITORIES, Repository(repository_id="repo", url=url, default_revision=b"trunk", **everyday)
        )
        item = WorkItem(work_item_id="item", title="It leaks", notes=("a", "b"), repository_id="repo", **everyday)
        await catalog.create(WORK_ITEMS, item)
        yield opened


async def admitted(book: Books, **fields: Any) -> JobSpec:
    return (await book.admit(**fields)).spec


async def test_layers_lie_over_one_another(book: Books) -> None:
    mine = AgentSettings(environment={"C": "3"}, sandbox_tier=Tier.NONE)
    spec = await admitted(book, worker_id="ada", agent=mine, policy=Policy(verify_command=""))
    assert (spec.agent.engine, spec.agent.model) == (CommandEngine(line="lower"), "large")
    assert spec.agent.timeout == timedelta(seconds=5)
    assert spec.agent.environment == {"A": "1", "B": "2", "C": "3"}
    assert spec.agent.sandbox_tier is Tier.NONE
    assert (spec.policy.verify_command, spec.policy.publish) == ("", Publish.NONE)
    assert (spec.worker_name, spec.template_id) == ("Ada", "template")


async def test_a_work_items_settings_lie_between_its_workers_and_its_jobs(book: Books) -> None:
    settings = AgentSettings(model="huge", environment={"B": "3", "C": "3"}, timeout=timedelta(seconds=9))
    policy = Policy(verify_command="make its-test", max_attempts=1)
    everyday = {"project_id": "default", "create_time": NOW}
    item = WorkItem(work_item_id="special", title="It is slow", agent=settings, policy=policy, **everyday)
    await CatalogStore(book.engine).create(WORK_ITEMS, item)
    spec = await admitted(
        book, worker_id="ada", work_item_id="special", agent=AgentSettings(model="own", environment={"C": "4"})
    )
    assert (spec.agent.chosen_engine, spec.agent.model) == (CommandEngine(line="lower"), "own")
    assert spec.agent.timeout == timedelta(seconds=9)
    assert spec.agent.environment == {"A": "1", "B": "3", "C": "4"}
    assert (spec.policy.verify_command, spec.policy.publish) == ("make its-test", Publish.NONE)
    assert (await admitted(book, worker_id="ada", work_item_id="item")).policy.verify_command == "make test"


async def test_without_layers_the_defaults_are_in_force(book: Books) -> None:
    spec = await admitted(book)
    assert spec.agent == replace(DEFAULTS, engine=CommandEngine(line="true"))
    assert spec.policy == DEFAULT_POLICY
    assert (spec.repository_id, spec.branch, spec.revision) == ("", b"", b"")


async def test_defaults_are_those_of_the_engine_that_is_chosen(book: Books) -> None:
    """Also when an engine is left and chosen again: the gateway's command and model are never lost."""
    await CatalogStore(book.engine).create(
        TEMPLATES,
        Template(
            template_id="model",
            project_id="default",
            agent=AgentSettings(engine=AnthropicEngine(max_tokens=5), model="m"),
            create_time=NOW,
        ),
    )
    assert (await admitted(book, template_id="model")).agent.engine == AnthropicEngine(max_tokens=5)
    back = await admitted(book, template_id="model", agent=AgentSettings(engine=CommandEngine()))
    assert back.agent.engine == CommandEngine(line="true")


async def test_a_jobs_settings_are_written_as_a_layer_and_back(book: Books) -> None:
    spec = await admitted(
        book, worker_id="ada", agent=AgentSettings(engine=CommandEngine(prompt_delivery=PromptDelivery.ARGUMENT))
    )
    assert AGENT.from_proto(AGENT.to_proto(spec.agent)) == spec.agent
    assert complete_policy(POLICY.from_proto(POLICY.to_proto(spec.policy))) == spec.policy


async def test_a_work_item_brings_its_words_and_its_repository(book: Books) -> None:
    spec = await admitted(book, prompt="Mend it.", work_item_id="item")
    assert spec.prompt == "Mend it."
    assert spec.task == "# It leaks\n\n## Notes\n\na\n\nb\n\n## What to do\n\nMend it.\n"
    assert (spec.repository_id, spec.revision, spec.branch) == ("repo", b"trunk", b"ticket-item")


async def test_a_branch_and_a_revision_of_ones_own(book: Books) -> None:
    spec = await admitted(book, repository_id="repo", revision=b"v1", branch=b"feature/x")
    assert (spec.revision, spec.branch) == (b"v1", b"feature/x")
    default = await admitted(book, repository_id="repo")
    assert default.branch == f"boatyard/{default.job_id}".encode()


@pytest.mark.parametrize(
    "fields",
    [{"worker_id": "ada"}, {"template_id": "template"}, {"repository_id": "repo"}, {"work_item_id": "item"}],
    ids=str,
)
async def test_what_belongs_to_another_project_is_not_found(book: Books, fields: dict[str, str]) -> None:
    with pytest.raises(NotFound):
        await admitted(book, project_id="other", **fields)
    assert await admitted(book, **fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agent": AgentSettings(engine=CommandEngine(line=""))}, "agent.command.line"),
        ({"work_item_id": "item", "prompt": "x" * (1 << 20)}, "prompt"),
        (
            {
                "agent": AgentSettings(engine=CommandEngine(prompt_delivery=PromptDelivery.ARGUMENT)),
                "prompt": "x" * (128 << 10),
            },
            "prompt",
        ),
        ({"agent": AgentSettings(system_prompt="x" * (60 << 10), environment={"A": "x" * 4096})}, "agent"),
        (
            {"worker_id": "ada", "agent": AgentSettings(environment={str(n): "" for n in range(127)})},
            "agent.environment",
        ),
        ({"agent": AgentSettings(image="app:1")}, "agent.image"),
    ],
    ids=[
        *("no command", "too long with the work item", "too long for an argument", "too large", "too many"),
        "an image without a container",
    ],
)
async def test_what_shows_only_when_all_is_merged(book: Books, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        await admitted(book, path="spec.", **fields)
    assert [name for name, _ in refused.value.violations] == [f"spec.{field}"]


@pytest.fixture
def as_role() -> Iterator[Callable[[Role], None]]:
    yield lambda role: set_current_principal(Principal("somebody", role))
    set_current_principal(OURSELVES)


def asking(*stages: str) -> Policy[None]:
    return Policy(checkpoints=Checkpoints(stages))


@pytest.mark.parametrize("own", [(), ("start",)])
@pytest.mark.parametrize("layer", ["kind", "template", "worker"])
async def test_only_an_administrators_job_asks_less_than_its_policy_demands(
    book: Books, as_role: Callable[[Role], None], layer: str, own: tuple[str, ...]
) -> None:
    catalog = CatalogStore(book.engine)
    everyday = {"project_id": "default", "create_time": NOW}
    await catalog.create(TEMPLATES, Template(template_id="guarded", policy=asking("push"), **everyday))
    grace = Worker(worker_id="grace", display_name="Grace", policy=asking("push"), **everyday)
    await catalog.create(WORKERS, grace)
    references = {
        "kind": {"kind": "code-generation", "repository_id": "repo"},
        "template": {"template_id": "guarded"},
        "worker": {"worker_id": "grace"},
    }[layer]

    as_role(Role.OPERATOR)
    with pytest.raises(Invalid) as refused:
        await book.admit(**references, policy=asking(*own))
    ((field, description),) = refused.value.violations
    assert field == "policy.checkpoints.before"
    assert "must have push" in description
    assert (await admitted(book, **references)).policy.checkpoints.before == ("push",)
    assert (await admitted(book, **references, policy=asking("push", "start"))).policy.checkpoints.before == (
        "start",
        "push",
    )
    as_role(Role.ADMIN)
    assert (await admitted(book, **references, policy=asking(*own))).policy.checkpoints.before == own


async def test_a_work_item_adds_to_what_people_are_asked_and_leaves_nothing_out(
    book: Books, as_role: Callable[[Role], None]
) -> None:
    catalog = CatalogStore(book.engine)
    everyday = {"project_id": "default", "create_time": NOW}
    grace = Worker(worker_id="grace", display_name="Grace", policy=asking("push"), **everyday)
    await catalog.create(WORKERS, grace)
    for name, policy in (("less", asking()), ("more", asking("start", "push"))):
        await catalog.create(WORK_ITEMS, WorkItem(work_item_id=name, title=name, policy=policy, **everyday))

    as_role(Role.OPERATOR)
    with pytest.raises(Invalid, match="must have push"):
        await book.admit(worker_id="grace", work_item_id="less")
    assert (await admitted(book, worker_id="grace", work_item_id="more")).policy.checkpoints.before == ("start", "push")
    as_role(Role.ADMIN)
    assert (await admitted(book, worker_id="grace", work_item_id="less")).policy.checkpoints.before == ()
