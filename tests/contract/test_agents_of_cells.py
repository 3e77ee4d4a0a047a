"""Which agents cells have by name: admission knows it, claims leave jobs to those that have theirs, waits tell it."""

from dataclasses import replace

import pytest

from services.agent.settings import AgentSettings, CommandEngine
from services.common.errors import FailedPrecondition
from services.gateway.cells.store import CellStore
from services.gateway.jobs.retries import Retries
from services.gateway.values.cells import Cell, CellKind
from services.gateway.values.jobs import WaitsFor
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import JobState
from services.sandbox.spec import Tier
from tests.kit.ledger import Books, claimed

MISSING = "Claude Code is not installed: there is no program. To install it: npm install claude"
WITH, WITHOUT = {"claude": "", "codex": ""}, {"claude": MISSING, "codex": ""}
CLAUDE = AgentSettings(engine=CommandEngine(preset="claude"))
CELL = Cell(cell_id="cell", host="h", version="1", capacity=1, address="", peer_token="")


async def register(book: Books, cell_id: str, agents: dict[str, str] | None, **fields: object) -> CellStore:
    store = CellStore(book.engine, 60)
    await store.register(replace(CELL, cell_id=cell_id, **fields), Condition(None, (), agents))
    return store


async def refusal(book: Books, agent: AgentSettings = CLAUDE) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        await book.admit(agent=agent)
    return caught.value


@pytest.mark.parametrize("kind", CellKind)
async def test_an_agent_that_no_cell_has_is_refused_with_how_to_install_it(book: Books, kind: CellKind) -> None:
    await register(book, "first", {"codex": ""}, kind=kind)
    await register(book, "second", WITHOUT, kind=kind)
    error = await refusal(book)
    assert (error.reason, error.subject) == ("AGENT_NOT_INSTALLED", "agent.command.preset")
    assert error.message == f"no cell can start the agent claude: {MISSING}"
    unknown = await refusal(book, AgentSettings(engine=CommandEngine(preset="nobody")))
    assert "it has no agent 'nobody'; it has codex" in unknown.message


@pytest.mark.parametrize(
    ("agents", "agent"),
    [
        (WITH, CLAUDE),
        (None, CLAUDE),
        (WITHOUT, AgentSettings(engine=CommandEngine(preset="codex"))),
        (WITHOUT, AgentSettings(engine=CommandEngine(line="claude"))),
        (WITHOUT, replace(CLAUDE, sandbox_tier=Tier.CONTAINER, image="agents:1")),
    ],
    ids=["installed", "not said yet", "another agent", "a command", "in an image"],
)
async def test_what_a_cell_may_be_able_to_start_is_admitted(
    book: Books, agents: dict[str, str] | None, agent: AgentSettings
) -> None:
    await register(book, "cell", agents)
    assert (await book.admit(agent=agent)).state is JobState.PENDING


async def test_a_job_goes_to_the_cell_that_has_its_agent(book: Books) -> None:
    lacking, having = await book.cell("lacking"), await book.cell("having")
    store = await register(book, "lacking", WITHOUT)
    await register(book, "having", WITH)
    job_id = (await book.admit(agent=CLAUDE)).spec.job_id
    other = (await book.admit()).spec.job_id
    assert (await claimed(lacking)).job_id == other, "what comes after it does not wait for it"
    assert await lacking.claim() is None
    await store.set_paused("having", paused=True)
    waiting = (await book.store.job(job_id)).waiting_for
    assert waiting is not None
    assert waiting.kind is WaitsFor.NO_PLACE
    assert "having is paused" in waiting.message
    await store.set_paused("having", paused=False)
    assert (await claimed(having)).job_id == job_id


async def test_what_a_cell_lacks_is_told_to_whoever_waits(book: Books) -> None:
    store = await register(book, "lacking", WITHOUT, capacity=4)
    await register(book, "having", WITH, capacity=0)
    job_id = (await book.admit(agent=CLAUDE)).spec.job_id
    waiting = (await book.store.job(job_id)).waiting_for
    assert waiting is not None
    assert f"lacking cannot start the agent claude ({MISSING})" in waiting.message
    await store.set_condition("lacking", Condition(None, (), WITH))
    await store.set_condition("lacking", Condition(None))  # its service does not answer for a moment
    assert (await book.store.job(job_id)).waiting_for is None, "it has been installed"


async def test_what_no_cell_has_any_more_is_taken_to_be_refused_by_the_node(book: Books) -> None:
    cell = await book.cell("cell")
    store = await register(book, "cell", WITH)
    job_id = (await book.admit(agent=CLAUDE)).spec.job_id
    await store.set_condition("cell", Condition(None, (), WITHOUT))
    lease = await claimed(cell)
    assert (lease.job_id, lease.has_other_place) == (job_id, False)
    await cell.finish(lease, Outcome(JobState.FAILED, Failure("AGENT_NOT_INSTALLED", MISSING)))
    retries = Retries(book.engine, book.notifier)
    with pytest.raises(FailedPrecondition) as caught:
        await retries.retry(job_id, from_snapshot=False, key=None)
    assert caught.value.reason == "AGENT_NOT_INSTALLED"
    await store.set_condition("cell", Condition(None, (), WITH))
    assert (await retries.retry(job_id, from_snapshot=False, key=None)).state is JobState.PENDING
