"""What cells let jobs choose: admission knows it, and claims leave to other cells what they alone allow."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition, PermissionDenied
from services.gateway.cells.store import CellStore
from services.gateway.jobs.retries import Retries
from services.gateway.values.cells import Cell, CellKind
from services.gateway.values.principal import OURSELVES, Principal, Role, set_current_principal
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from services.sandbox.allowance import DEFAULT_ALLOWANCE, Allowance
from services.sandbox.spec import Network, Tier
from tests.kit.ledger import Books, claimed, expire_leases, set_job

WIDE = Allowance.of(tuple(Tier), tuple(Network))
BARE, OPEN = AgentSettings(sandbox_tier=Tier.NONE), AgentSettings(network=Network.OPEN)


async def register(book: Books, cell_id: str, allowance: Allowance | None, **fields: Any) -> None:
    cell = Cell(
        **{"cell_id": cell_id, "host": "h", "version": "1", "capacity": 1, "address": "", "peer_token": ""} | fields
    )
    await CellStore(book.engine, 60).register(cell, Condition(allowance))


async def refusal(book: Books, agent: AgentSettings) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        await book.admit(agent=agent)
    return caught.value


async def test_what_no_cell_allows_is_refused_at_once(book: Books) -> None:
    await register(book, "one", DEFAULT_ALLOWANCE)
    await register(book, "simple", None, kind=CellKind.COORDINATOR)
    tier, network = await refusal(book, BARE), await refusal(book, OPEN)
    assert (tier.reason, network.reason) == ("TIER_NOT_ALLOWED", "NETWORK_NOT_ALLOWED")
    assert "BOATYARD_EXECUTION_ALLOWED_TIERS" in tier.message
    assert "BOATYARD_EXECUTION_ALLOWED_NETWORKS" in network.message
    await book.admit()

    await register(book, "another", Allowance.of({Tier.BUBBLEWRAP}, {Network.OPEN}))
    await book.admit(agent=OPEN)
    both = await refusal(book, AgentSettings(sandbox_tier=Tier.CONTAINER, image="i", network=Network.OPEN))
    assert both.reason == "NETWORK_NOT_ALLOWED", "each is allowed somewhere, but not both in one place"


async def test_a_cell_that_has_not_said_it_may_allow_anything(book: Books) -> None:
    """Its node is asked when it starts; it refuses by itself what it does not allow."""
    await register(book, "one", None)
    await book.admit(agent=BARE)
    await CellStore(book.engine, 60).set_condition("one", Condition(DEFAULT_ALLOWANCE))
    assert (await refusal(book, BARE)).reason == "TIER_NOT_ALLOWED"


async def test_a_job_goes_to_a_cell_that_allows_it(book: Books) -> None:
    narrow, wide = await book.cell("narrow"), await book.cell("wide")
    await register(book, "narrow", DEFAULT_ALLOWANCE)
    await register(book, "wide", WIDE)
    bare = (await book.admit(agent=BARE)).spec.job_id
    usual = (await book.admit()).spec.job_id
    assert (await claimed(narrow)).job_id == usual
    assert await narrow.claim() is None
    assert (await claimed(wide)).job_id == bare
    await expire_leases(book)
    assert (await claimed(narrow)).job_id == usual, "but not the other one, which has a cell that allows it"
    assert await narrow.claim() is None


async def test_what_nobody_allows_any_more_is_taken_to_be_refused_by_the_node(book: Books) -> None:
    cell = await book.cell("one")
    await register(book, "one", WIDE)
    job_id = (await book.admit(agent=BARE)).spec.job_id
    await register(book, "one", DEFAULT_ALLOWANCE)
    assert (await claimed(cell)).job_id == job_id


async def test_jobs_that_began_or_came_before_go_on(book: Books) -> None:
    cell, _ = await book.cell("one"), await book.cell("wide")
    await register(book, "one", WIDE)
    await register(book, "wide", WIDE)
    begun = (await book.admit(agent=BARE)).spec.job_id
    assert (await claimed(cell)).job_id == begun
    await register(book, "one", DEFAULT_ALLOWANCE)
    await cell.take_over_own("host")
    assert (await claimed(cell)).job_id == begun, "after a restart with a narrower setting"
    earlier = (await book.admit(agent=BARE)).spec.job_id
    await set_job(book, earlier, sandbox_tier="", network="")
    assert (await claimed(cell)).job_id == earlier, "one that the version before has written is left to the node"


@pytest.fixture
def as_caller() -> Iterator[Callable[..., None]]:
    yield lambda role, projects=None: set_current_principal(Principal("caller", role, projects))
    set_current_principal(OURSELVES)


@pytest.mark.parametrize(
    ("role", "projects"), [(Role.OPERATOR, None), (Role.ADMIN, frozenset({"default"}))], ids=["operator", "scoped"]
)
async def test_tier_none_is_for_administrators_of_all_projects(
    book: Books, as_caller: Callable[..., None], role: Role, projects: frozenset[str] | None
) -> None:
    cell = await book.cell("one")
    await register(book, "one", WIDE)
    as_caller(Role.ADMIN)
    job_id = (await book.admit(agent=BARE)).spec.job_id
    await cell.finish(await claimed(cell), Outcome(JobState.CANCELLED))
    as_caller(role, projects)
    with pytest.raises(PermissionDenied, match="only an administrator of all projects") as caught:
        await book.admit(agent=BARE)
    assert caught.value.reason == "ROLE_REQUIRED"
    with pytest.raises(PermissionDenied):
        await Retries(book.engine, book.notifier).retry(job_id, from_snapshot=False, key=None)
    await book.admit(agent=OPEN)
