"""What cells let jobs choose: admission knows it, and claims leave to other cells what they alone allow."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.agent.allowance import DEFAULT_ALLOWANCE, Allowance
from services.agent.limits import LIMITS, Limits
from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition, Invalid, PermissionDenied
from services.gateway.cells.store import CellStore
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.submission import JobSubmission
from services.gateway.values.cells import Cell, CellKind
from services.gateway.values.principal import OURSELVES, Principal, Role, set_current_principal
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.floor import Floor
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import JobState
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


def at_most(limits: str) -> Allowance:
    return Allowance.of(DEFAULT_ALLOWANCE.tiers, DEFAULT_ALLOWANCE.networks, Limits.parse(limits))


LONG, BIG = AgentSettings(timeout=timedelta(hours=2)), AgentSettings(memory_bytes=4 << 30)


@pytest.mark.parametrize("name", LIMITS)
async def test_more_than_any_cell_allows_is_refused_at_once(book: Books, name: str) -> None:
    await register(book, "one", at_most(f"{name}=100"))
    await register(book, "two", at_most(f"{name}=10"))
    of_type = (lambda count: timedelta(seconds=count)) if "timeout" in name else int
    error = await refusal(book, AgentSettings(**{name: of_type(101)}))
    assert error.reason == "LIMIT_NOT_ALLOWED"
    assert f"{name} of more than 100" in error.message
    assert "BOATYARD_EXECUTION_LIMITS" in error.message
    await book.admit(agent=AgentSettings(**{name: of_type(100)}))
    await book.admit()


async def test_limits_are_those_of_a_cell_that_allows_the_rest(book: Books) -> None:
    await register(book, "one", at_most("timeout=3600,memory_bytes=8589934592"))
    await register(book, "two", at_most("timeout=7200,memory_bytes=1073741824"))
    await book.admit(agent=LONG)
    await book.admit(agent=BIG)
    both = await refusal(book, replace(LONG, memory_bytes=4 << 30))
    assert both.reason == "LIMIT_NOT_ALLOWED"
    assert "all of timeout=7200,memory_bytes=4294967296 in one place" in both.message


async def test_a_default_is_what_cells_allow(book: Books) -> None:
    """Nobody has asked for an hour, so it is not refused."""
    await register(book, "one", at_most("timeout=60"))
    await register(book, "two", at_most("timeout=600"))
    assert (await book.admit()).spec.agent.timeout == timedelta(minutes=10)
    await register(book, "two", at_most("timeout=7200"))
    assert (await book.admit()).spec.agent.timeout == timedelta(hours=1)


async def test_a_retried_job_is_measured_again(book: Books) -> None:
    cell = await book.cell("one")
    await register(book, "one", at_most("timeout=7200"))
    job_id = (await book.admit(agent=LONG)).spec.job_id
    await cell.finish(await claimed(cell), Outcome(JobState.CANCELLED))
    await register(book, "one", at_most("timeout=60"))
    with pytest.raises(FailedPrecondition, match="BOATYARD_EXECUTION_LIMITS") as caught:
        await Retries(book.engine, book.notifier).retry(job_id, from_snapshot=False, key=None)
    assert caught.value.reason == "LIMIT_NOT_ALLOWED"


async def test_a_job_goes_to_a_cell_that_lets_it_have_as_much(book: Books) -> None:
    small, large = await book.cell("small"), await book.cell("large")
    await register(book, "small", at_most("timeout=3600"))
    await register(book, "large", at_most("timeout=7200,processes=10"))
    long = (await book.admit(agent=LONG)).spec.job_id
    many = (await book.admit(agent=AgentSettings(processes=100))).spec.job_id
    before = (await book.admit(agent=LONG)).spec.job_id
    await set_job(book, before, limits="", sandbox_tier="", network="")
    assert (await claimed(small)).job_id == many
    assert (await claimed(small)).job_id == before, "one that the version before has written is left to the node"
    assert await small.claim() is None
    assert (await claimed(large)).job_id == long
    await expire_leases(book)
    assert (await claimed(small)).job_id in {many, before}
    assert (await claimed(small)).job_id in {many, before}
    assert await small.claim() is None


async def test_the_most_that_the_contract_knows_is_compared_too(book: Books) -> None:
    await register(book, "one", at_most("memory_bytes=8589934592"))
    await register(book, "two", at_most(f"memory_bytes={1 << 50},token_budget={(1 << 63) - 1}"))
    most = AgentSettings(memory_bytes=1 << 50, token_budget=(1 << 63) - 1)
    asked = (await book.admit(agent=most)).spec.job_id
    usual = (await book.admit()).spec.job_id
    assert (await claimed(await book.cell("one"))).job_id == usual
    assert (await claimed(await book.cell("two"))).job_id == asked


async def test_the_gateway_bounds_attempts_and_rounds(book: Books) -> None:
    admission = Admission(book.engine, book.notifier, "true", tries=Floor(max_attempts=2, max_extra_rounds=0))
    policy = (await admission.admit(JobSubmission(project_id="default", prompt="p"), None)).spec.policy
    assert (policy.max_attempts, policy.max_extra_rounds) == (2, 0), "nobody has asked for the defaults"
    for asked in (Policy(max_attempts=3), Policy(max_extra_rounds=1)):
        with pytest.raises(Invalid, match=r"BOATYARD_GATEWAY_MAX_(ATTEMPTS|EXTRA_ROUNDS)"):
            await admission.admit(JobSubmission(project_id="default", prompt="p", policy=asked), None)


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
