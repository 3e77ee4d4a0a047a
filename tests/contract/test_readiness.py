"""A cell that cannot carry jobs takes none, and says why; who is alive is judged by each cell's own lease."""

import dataclasses
from collections.abc import AsyncIterator

import grpc
import pytest
from boatyard.gateway.v1 import coordinator_pb2 as pb
from boatyard.readiness.v1 import readiness_pb2

from services.agent.allowance import DEFAULT_ALLOWANCE
from services.gateway.cells.store import CellStore
from services.gateway.jobs.retries import Retries
from services.gateway.schema.clock import now
from services.gateway.values.cells import Cell, CellKind, CellState, CellView
from services.lifecycle.model.condition import STARTING, Condition, Trouble
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.states import JobState
from tests.kit.coordinators import LEASE_SECONDS, coordinator_api, remote_ledger
from tests.kit.ledger import Books, age_heartbeat, books, claimed, expire_leases, park, set_job

FULL = Trouble("DISK_FULL", "no room for another workspace: \u2026 'free' 0")
BROKEN = Trouble("SANDBOX_UNAVAILABLE", "bubblewrap is not installed")


@pytest.fixture
async def book(gateway_url: str) -> AsyncIterator[Books]:
    async with books(gateway_url) as opened:
        yield opened


def a_cell(cell_id: str) -> Cell:
    return Cell(cell_id=cell_id, host="h", version="1", capacity=4, address="", peer_token="")


async def seen(store: CellStore, cell_id: str = "one") -> CellView:
    found = await store.find(cell_id)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "troubles", [(FULL,), (BROKEN,), (FULL, BROKEN), (STARTING,)], ids=["disk", "sandbox", "both", "starting"]
)
async def test_a_cell_with_troubles_claims_nothing_new_and_says_why(book: Books, troubles: tuple[Trouble, ...]) -> None:
    store = CellStore(book.engine, LEASE_SECONDS)
    await store.register(a_cell("one"))
    one, two = await book.cell("one"), await book.cell("two")
    begun = await book.admit()
    await claimed(one)
    await store.set_condition("one", Condition(None, troubles))
    lost, waiting = await book.admit(), await book.admit()
    await claimed(two)

    assert await one.claim() is None
    assert (await seen(store)).state is CellState.NOT_READY
    assert (await seen(store)).troubles == troubles
    await expire_leases(book)
    assert (await claimed(one)).job_id == begun.spec.job_id, "it goes on with what it has begun"
    assert await one.claim() is None, "but takes over nothing of others"
    await park(book, await claimed(two), seconds=0)
    assert (await claimed(two)).job_id == lost.spec.job_id

    await store.set_condition("one", Condition(DEFAULT_ALLOWANCE))
    assert (await seen(store)).state is CellState.ACTIVE
    assert (await claimed(one)).job_id == waiting.spec.job_id


async def test_a_pause_is_shown_before_troubles_and_a_start_forgets_them(book: Books) -> None:
    store = CellStore(book.engine, LEASE_SECONDS)
    await store.register(a_cell("one"), Condition(DEFAULT_ALLOWANCE, (FULL,)))
    paused = await store.set_paused("one", paused=True)
    assert (paused.state, paused.troubles) == (CellState.PAUSED, (FULL,))
    await store.set_paused("one", paused=False)
    await store.set_condition("one", Condition(None, (FULL,)))
    assert (await seen(store)).allowance == DEFAULT_ALLOWANCE, "what it does not know of itself stays"
    await store.register(a_cell("one"))
    assert (await seen(store)).state is CellState.ACTIVE


async def test_a_coordinator_with_troubles_is_given_nothing(book: Books) -> None:
    async with coordinator_api(book) as api, remote_ledger(api.address) as remote:
        request = pb.ClaimJobRequest(coordinator_id="remote", capacity=4)
        job = await book.admit()
        await remote.report(Condition(DEFAULT_ALLOWANCE, (FULL,)))
        assert not (await api.coordinator.ClaimJob(request, timeout=0.5)).HasField("job")
        assert (await seen(CellStore(book.engine, LEASE_SECONDS), "remote")).troubles == (FULL,)
        await remote.report(Condition(DEFAULT_ALLOWANCE))
        assert (await claimed(remote)).job_id == job.spec.job_id  # type: ignore[arg-type] # it has a ledger's methods

        bad = pb.ReportConditionRequest(coordinator_id="remote", troubles=[readiness_pb2.Trouble(reason="no reason")])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.coordinator.ReportCondition(bad)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("hasty_seconds", [1.0, 5.0])
async def test_a_cell_with_a_short_lease_thinks_no_other_away(book: Books, hasty_seconds: float) -> None:
    """What a cell with leases of its own length said a while ago still holds for one with shorter ones."""
    await CellStore(book.engine, LEASE_SECONDS).register(a_cell("slow"))
    hasty_store = CellStore(book.engine, hasty_seconds)
    await hasty_store.register(a_cell("hasty"))
    slow, hasty = await book.cell("slow", LEASE_SECONDS), await book.cell("hasty", hasty_seconds)
    parked, bound = (await book.admit()).spec.job_id, (await book.admit()).spec.job_id
    for _ in range(2):
        await claimed(slow)
    await set_job(book, parked, state="AWAITING_APPROVAL", held=False, lease_until=0, wake_time=0)
    await set_job(book, bound, state="PENDING", held=False, lease_until=0, bound_cell_id="slow", snapshot_id="s")

    await age_heartbeat(book, "slow", 2.5 * LEASE_SECONDS)
    assert (await seen(hasty_store, "slow")).state is CellState.ACTIVE
    assert await hasty.claim() is None
    await age_heartbeat(book, "slow", 3.5 * LEASE_SECONDS)
    assert (await seen(hasty_store, "slow")).state is CellState.AWAY
    assert (await claimed(hasty)).job_id == parked


async def test_a_cell_with_a_long_lease_does_not_wait_for_one_with_a_short_one(book: Books) -> None:
    slow_store = CellStore(book.engine, LEASE_SECONDS)
    await CellStore(book.engine, 1).register(a_cell("hasty"))
    await slow_store.register(a_cell("slow"))
    await age_heartbeat(book, "hasty", 4)
    assert (await seen(slow_store, "hasty")).state is CellState.AWAY


async def test_the_row_of_a_version_before_is_judged_by_ones_own_lease(book: Books) -> None:
    store = CellStore(book.engine, LEASE_SECONDS)
    await store.register_if_absent(a_cell("old"))  # writes no lease, as a version before does
    await age_heartbeat(book, "old", 2 * LEASE_SECONDS)
    assert (await seen(store, "old")).state is CellState.ACTIVE
    await (await book.cell("old", 1)).beat([])
    await age_heartbeat(book, "old", 2 * LEASE_SECONDS)
    assert (await seen(store, "old")).state is CellState.AWAY, "a heartbeat says what its lease is"


async def test_after_an_outage_the_longest_lease_is_waited_for(book: Books) -> None:
    """Who beats every third of a long lease has not had the time to beat when a short one is over."""
    await CellStore(book.engine, LEASE_SECONDS).register(a_cell("slow"))
    hasty = await book.cell("hasty", 0.01)
    await hasty.beat([])
    hasty.wait_for_others()
    assert not hasty.takes_over()
    await book.admit()
    await claimed(await book.cell("slow", LEASE_SECONDS))
    await expire_leases(book)
    assert await hasty.claim() is None


REFUSED = Retry(Failure("DISK_FULL", "no room"), seconds=0.0, is_refusal=True)


async def gateways(book: Books, *cell_ids: str, **known: object) -> CellStore:
    store = CellStore(book.engine, LEASE_SECONDS)
    for cell_id in cell_ids:
        await store.register(dataclasses.replace(a_cell(cell_id), **known))
    return store


async def test_what_a_cell_refuses_goes_elsewhere_and_uses_up_no_attempt(book: Books) -> None:
    await gateways(book, "one", "two")
    one, two = await book.cell("one"), await book.cell("two")
    job = await book.admit()
    for number in range(5):
        lease = await claimed(one)
        assert (lease.attempt, lease.last_attempt) == (1 + number, 3 + number)
        assert lease.has_other_place
        assert lease.patience_seconds > 3500
        await one.retry(lease, REFUSED)
        assert await one.claim() is None, "others come first"
        await set_job(book, job.spec.job_id, wake_time=1, refused_since=now() - 1_000_000)
    lease = await claimed(two)
    assert (lease.attempt, lease.last_attempt, lease.has_other_place) == (6, 8, False), "the other has refused it"
    await two.retry(lease, Retry(Failure("AGENT_FAILED", "it broke"), seconds=0.0))
    assert (await claimed(one)).last_attempt == 8, "a failure of the job's own counts, and forgets who refused it"


@pytest.mark.parametrize("part", ["one", "two"])
async def test_a_refusal_is_the_cells_and_not_of_one_with_a_part_of_its_name(book: Books, part: str) -> None:
    await gateways(book, "one-two", part)
    refusing, other = await book.cell("one-two"), await book.cell(part)
    await book.admit()
    await refusing.retry(await claimed(refusing), REFUSED)
    assert await refusing.claim() is None
    await claimed(other)


async def test_the_patience_with_refusals_ends_and_a_person_renews_it(book: Books) -> None:
    await gateways(book, "one")
    one = await book.cell("one")
    job = await book.admit()
    await one.retry(await claimed(one), REFUSED)
    await set_job(book, job.spec.job_id, wake_time=1, refused_since=now() - 7200 * 1_000_000)
    lease = await claimed(one)
    assert (lease.has_other_place, lease.patience_seconds) == (False, 0)
    await one.finish(lease, Outcome(JobState.FAILED, REFUSED.failure))
    await Retries(book.engine, book.notifier).retry(job.spec.job_id, from_snapshot=False, key=None)
    assert (await claimed(one)).patience_seconds > 3500


@pytest.mark.parametrize("other", ["paused", "not ready", "away", "without room", "coordinator", "not there"])
async def test_who_takes_no_jobs_is_no_other_place(book: Books, other: str) -> None:
    store = await gateways(book, "one")
    if other != "not there":
        kind = {"kind": CellKind.COORDINATOR} if other == "coordinator" else {}
        await gateways(book, "two", capacity=0 if other == "without room" else 4, **kind)
    if other == "paused":
        await store.set_paused("two", paused=True)
    if other == "not ready":
        await store.set_condition("two", Condition(None, (FULL,)))
    if other == "away":
        await age_heartbeat(book, "two", 4 * LEASE_SECONDS)
    await book.admit()
    assert not (await claimed(await book.cell("one"))).has_other_place
