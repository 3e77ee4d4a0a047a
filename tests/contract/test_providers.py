"""Which providers of models an agent has when it starts: on every database, here and on a coordinator."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from boatyard.execution.v1 import execution_pb2 as execution

from bench.kit.nodes import NoOpAgents, idle_nodes
from services.agent.providers import EVERYWHERE, ModelProvider, ModelWire
from services.agent.settings import AgentSettings, AnthropicEngine
from services.common.errors import FailedPrecondition, NotFound
from services.gateway.catalog.store import PROJECTS, PROVIDERS, CatalogStore
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.submission import JobSubmission
from services.gateway.jobs.wire import job_document
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.values.catalog import Project, Provider
from services.lifecycle.ledger import Lease, StageEnd
from services.lifecycle.life import run_job
from services.lifecycle.model.outcome import Outcome, RetentionPeriods
from services.lifecycle.model.states import JobState
from services.lifecycle.run import JobRun
from services.lifecycle.webhooks import AllowList, Webhooks
from tests.kit.ledger import Books, claimed

TIME = datetime(2026, 1, 2, tzinfo=UTC)
OURS = Provider(
    provider_id="ours",
    wire=ModelWire.MESSAGES,
    base_url="https://models.example",
    keys=("sk-one-key", "sk-two-key"),
    aliases={"fast": "small-1"},
    models=("small-1",),
    project_header="paying",
    create_time=TIME,
)


async def add(book: Books, *providers: Provider) -> CatalogStore:
    catalog = CatalogStore(book.engine)
    await catalog.create(PROJECTS, Project(project_id="harbour", create_time=TIME))
    await catalog.create(PROJECTS, Project(project_id="quay", create_time=TIME))
    for number, provider in enumerate(providers):
        await catalog.create(PROVIDERS, replace(provider, create_time=TIME + timedelta(seconds=number)))
    return catalog


def named(name: str, project_id: str = "", order: int = 0, **fields: Any) -> Provider:
    return replace(OURS, provider_id=name, project_id=project_id, order=order, **fields)


async def names_of(book: Books, *asked: str, on_coordinator: bool = False) -> list[str]:
    cell = await book.cell("cell", is_of_coordinator=on_coordinator)
    await book.admit(project_id="harbour", agent=AgentSettings(providers=asked))
    lease = await claimed(cell)
    found = [provider.name for provider in await cell.providers(lease)]
    assert (await cell.attempt(lease)).context.has_providers == bool(found)
    return found


@pytest.mark.parametrize(
    ("asked", "on_coordinator", "expected"),
    [
        ((), False, ["own-first", "own", "own-late", "all-first", "all", "given"]),
        (("all", "own-late"), False, ["all", "own-late"]),
        (("all", "off"), False, ["all"]),
        ((), True, ["given"]),
        (("given", "own"), True, ["given"]),
        (("own",), True, []),
    ],
)
async def test_a_projects_own_come_before_those_of_all(
    book: Books, asked: tuple[str, ...], on_coordinator: bool, expected: list[str]
) -> None:
    await add(
        book,
        named("all"),
        named("given", for_coordinators=True),
        named("all-first", order=-1),
        named("own", "harbour"),
        named("own-late", "harbour"),
        named("own-first", "harbour", order=-9),
        named("others", "quay", order=-99),
        named("off", disabled=True),
    )
    assert await names_of(book, *asked, on_coordinator=on_coordinator) == expected


async def test_a_job_that_names_disabled_providers_alone_is_refused(book: Books) -> None:
    await add(book, named("off", disabled=True))
    with pytest.raises(NotFound, match="disabled") as refused:
        await book.admit(project_id="harbour", agent=AgentSettings(providers=("off",)))
    assert refused.value.reason == "PROVIDER_NOT_FOUND"


@pytest.mark.parametrize("name", ["nobody", "others", "gone"])
async def test_a_provider_that_the_project_does_not_have_is_refused_by_name(book: Books, name: str) -> None:
    catalog = await add(book, named("all"), named("others", "quay"), named("gone"))
    await catalog.delete(PROVIDERS, "gone", TIME)
    with pytest.raises(NotFound, match=name) as refused:
        await book.admit(project_id="harbour", agent=AgentSettings(providers=("all", name)))
    assert refused.value.reason == "PROVIDER_NOT_FOUND"


class Agents(NoOpAgents):
    """Remembers what it was asked to start."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[execution.ExecutionSpec] = []

    async def StartExecution(  # noqa: N802 - the RPC's name
        self, request: execution.StartExecutionRequest, context: Any
    ) -> execution.StartExecutionResponse:
        self.started.append(request.spec)
        return await super().StartExecution(request, context)


class KeyChangesBeforeStart(SqlLedger):
    """A ledger in which a provider gets another key while its job's workspace is made."""

    async def begin_stage(self, lease: Lease, name: str, ended: Sequence[StageEnd] = ()) -> None:
        if name == "start":
            catalog = CatalogStore(self._engine)
            await catalog.update(PROVIDERS, "ours", lambda known: replace(known, keys=("sk-new-key",)))
        await super().begin_stage(lease, name, ended)


async def test_an_agent_starts_with_the_keys_of_now(book: Books) -> None:
    await add(book, OURS)
    agents = Agents()
    ledger = KeyChangesBeforeStart(book.engine, "cell", book.notifier, job_document)
    await ledger.take_over_own("host")
    await book.admit()
    async with idle_nodes(agents) as nodes:  # type: ignore[abstract] # a job calls no more
        job = JobRun(await claimed(ledger), ledger, nodes, Webhooks(), RetentionPeriods())
        assert await run_job(job) == Outcome(JobState.SUCCEEDED)
    ((sent,),) = [spec.providers for spec in agents.started]
    assert list(sent.keys) == ["sk-new-key"]
    assert (sent.name, sent.base_url, dict(sent.aliases), list(sent.models), sent.project_header) == (
        "ours",
        "https://models.example",
        {"fast": "small-1"},
        ["small-1"],
        "paying",
    )


async def test_what_a_job_says_has_the_names_of_keys(book: Books) -> None:
    await add(book, OURS, named("all", keys=("sk-of-all",)))
    cell = await book.cell("cell")
    await book.admit()
    async with idle_nodes(Agents()) as nodes:  # type: ignore[abstract] # a job calls no more
        job = JobRun(await claimed(cell), cell, nodes, Webhooks(), RetentionPeriods())
        await job.load()
        await job.providers()
    said = job.redactor.text("sk-one-key, sk-two-key and sk-of-all")
    assert said == "[redacted:ours], [redacted:ours-2] and [redacted:all]"


async def test_a_driver_that_finds_an_agent_running_knows_its_keys(book: Books) -> None:
    await add(book, OURS)
    cell = await book.cell("cell")
    await book.admit()
    lease = await claimed(cell)
    await cell.begin_stage(lease, "start")
    async with idle_nodes(Agents()) as nodes:  # type: ignore[abstract] # a job calls no more
        job = JobRun(lease, cell, nodes, Webhooks(), RetentionPeriods())
        await job.load()
    assert job.redactor.text("it says sk-one-key") == "it says [redacted:ours]"


LAN = ("10.0.0.0/8", "192.168.1.5/32")


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://models.example", LAN),
        ("http://10.1.2.3:8000/v1", EVERYWHERE),  # named itself, in a network
        ("http://Models.LAN:8000", EVERYWHERE),
        ("http://[::1]:9", LAN),
        ("https://models.lan.example", LAN),
    ],
)
async def test_the_agents_machine_says_where_providers_may_be(
    book: Books, base_url: str, expected: tuple[str, ...]
) -> None:
    """What the ledger says of that, which is another machine's for a coordinator, does not count."""
    await add(book, replace(OURS, base_url=base_url))

    class Generous(SqlLedger):
        async def providers(self, lease: Lease) -> tuple[ModelProvider, ...]:
            return tuple(replace(one, allowed_addresses=("127.0.0.0/8",)) for one in await super().providers(lease))

    ledger = Generous(book.engine, "cell", book.notifier, job_document)
    await ledger.take_over_own("host")
    await book.admit()
    own = ModelProvider(name="own", wire=ModelWire.CHAT, base_url="http://[::1]:1", allowed_addresses=EVERYWHERE)
    allowed = AllowList.parse("10.0.0.0/8, 192.168.1.5, models.lan", "BOATYARD_PROVIDER_ALLOW")
    async with idle_nodes(Agents()) as nodes:  # type: ignore[abstract] # a job calls no more
        lease = await claimed(ledger)
        job = JobRun(
            lease, ledger, nodes, Webhooks(), RetentionPeriods(), own_providers=[own], providers_allowed=allowed
        )
        await job.load()
        found = await job.providers()
    assert {one.name: one.allowed_addresses for one in found} == {"ours": expected, "own": EVERYWHERE}


MODEL = AgentSettings(engine=AnthropicEngine(), model="m")


@pytest.mark.parametrize(
    ("stored", "own", "names", "is_refused"),
    [
        ((), (), (), True),
        ((named("chat", wire=ModelWire.CHAT),), (), (), True),
        ((named("others", "quay"),), (), (), True),
        ((OURS,), (), (), False),
        ((OURS, named("chat", wire=ModelWire.CHAT)), (), ("chat",), True),
        ((), (OURS.to_agent(),), (), False),
        ((), (OURS.to_agent(),), ("ours",), False),
        ((), None, (), False),
    ],
)
async def test_a_model_without_a_provider_of_its_wire_is_refused(
    book: Books,
    stored: tuple[Provider, ...],
    own: tuple[ModelProvider, ...] | None,
    names: tuple[str, ...],
    is_refused: bool,
) -> None:
    await add(book, *stored)
    admission = Admission(book.engine, book.notifier, "true", own_providers=own)
    submission = JobSubmission(project_id="harbour", prompt="Go.", agent=replace(MODEL, providers=names))
    if not is_refused:
        await admission.admit(submission, None)
        return
    with pytest.raises(FailedPrecondition, match="--wire messages") as refused:
        await admission.admit(submission, None)
    assert refused.value.reason == "MODEL_KEY_MISSING"
    for cell in ("one", "two"):  # of which the other may have a key of its own
        await book.cell(cell)
    if not names:
        await admission.admit(submission, None)
