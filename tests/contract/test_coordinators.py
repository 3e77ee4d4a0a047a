"""What a driver without the database can rely on, and what nobody can do without holding a job."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import pytest_asyncio
from boatyard.execution.v1.event_pb2 import Event
from boatyard.gateway.v1 import coordinator_pb2 as pb
from boatyard.ledger.v1 import ledger_pb2

from services.agent.providers import ModelWire
from services.agent.recordings import Matching
from services.common.errors import Aborted, FailedPrecondition, Invalid, OutOfRange, ServiceError, Status
from services.common.rpc.status import service_error
from services.coordinator.clients import Upstream
from services.coordinator.ledger import ClaimFilter, RemoteLedger
from services.gateway.catalog.store import PROVIDERS, CatalogStore
from services.gateway.cells.store import CellStore
from services.gateway.hooks.store import HookStore
from services.gateway.ledger.events import EventStore
from services.gateway.values.catalog import Provider
from services.gateway.values.cells import CellKind
from services.gateway.values.events import NumberedEvent
from services.gateway.values.hooks import Hook, HookEvent
from services.gateway.values.jobs import WaitsFor
from services.gateway.wire.events import events_from_bytes
from services.lifecycle.ledger import Lease, LeaseLost, Ledger, LedgerUnavailable, Stage, StageEnd
from services.lifecycle.model.budgets import BudgetLimits
from services.lifecycle.model.checkpoint import Origin, Question
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.output import ChangeKind, DiffSummary, ExecutionNote, FileChange, Output
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState
from tests.kit.coordinators import LEASE_SECONDS, Api, coordinator_api, remote_ledger
from tests.kit.ledger import Books, expire_leases
from tests.kit.servers import TOKEN

FAILED = Outcome(JobState.FAILED, Failure("AGENT_FAILED", "it broke"))
BYTES = DiffSummary(files=(FileChange(b"\xff", ChangeKind.ADDED),), diff=b"\x00\xff" * 999)
GIVEN = Provider(
    provider_id="given",
    wire=ModelWire.CHAT,
    base_url="https://a.example/v1",
    keys=("sk-a-key", "sk-b-key"),
    aliases={"fast": "small"},
    for_coordinators=True,
    create_time=datetime.now(UTC),
)
WEBHOOK = Hook(
    hook_id="hook-1",
    project_id="default",
    event=HookEvent.PRE,
    url="https://a.example/",
    secret="whsec_QQ==",
    create_time=datetime.now(UTC),
)


@pytest_asyncio.fixture
async def api(book: Books) -> AsyncIterator[Api]:
    async with coordinator_api(book) as served:
        yield served


@pytest_asyncio.fixture
async def remote(api: Api) -> AsyncIterator[RemoteLedger]:
    async with remote_ledger(api.address) as ledger:
        yield ledger


async def claimed(ledger: Ledger) -> Lease:
    lease = await ledger.claim()
    assert lease
    return lease


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return service_error(error.value)


async def test_the_seam_far_away_is_the_seam(book: Books, remote: RemoteLedger) -> None:
    """What a driver writes over the API is what it, and everybody else, reads."""
    await HookStore(book.engine).create(WEBHOOK)
    for provider in (GIVEN, replace(GIVEN, provider_id="ours", for_coordinators=False)):
        await CatalogStore(book.engine).create(PROVIDERS, provider)
    view = await book.admit("Mend it.\N{ROCKET}", labels={"team": "é"})
    lease = await claimed(remote)
    local = await book.cell("elsewhere")
    assert remote.lease_seconds == LEASE_SECONDS
    assert (lease.spec, lease.attempt, lease.fence) == (view.spec, 1, 1)
    await remote.begin_stage(lease, "base")
    output = Output(summary="é\0", changes=BYTES, log_tail=b"\x80")
    note = ExecutionNote(lease.execution_id, Purpose.AGENT, "ws-1", ExecutionState.RUNNING, output=output)
    done = Stage("base", StageState.DONE, '{"a": 1}', "done")
    for _ in range(2):  # again, as if the first answer had been lost
        await remote.end_stage(lease, StageEnd(done, [note]))
    verifying = ExecutionNote(f"{lease.execution_id}-verify", Purpose.VERIFY, state=ExecutionState.RUNNING)
    await remote.note(lease, verifying)
    settled = Stage("hooks", StageState.DONE, "{}")
    for _ in range(2):
        await remote.begin_stage(lease, "workspace", [StageEnd(settled)])
    attempt = await remote.attempt(lease)
    assert attempt == await local.attempt(lease)
    assert attempt.stages == {"base": done, "hooks": settled, "workspace": Stage("workspace", StageState.RUNNING)}
    assert attempt.execution == note
    assert [hook.hook_id for hook in attempt.context.hooks] == ["hook-1"]
    await remote.begin_stage(lease, "error-hook-1")
    told = await remote.document(lease, "error-hook-1", FAILED)
    assert told == await local.document(lease, "error-hook-1", FAILED)
    assert await remote.signing_key(lease, "hook-1") == await local.signing_key(lease, "hook-1")
    assert [provider.name for provider in await local.providers(lease)] == ["given", "ours"]
    assert await remote.providers(lease) == (GIVEN.to_agent(),), "only what is for coordinators"
    assert attempt.context.has_providers
    for _ in range(2):
        await remote.finish(lease, FAILED, [StageEnd(Stage("workspace", StageState.DONE, "{}"))])
    job = await book.store.job(lease.job_id)
    assert (job.state, job.reason, job.message, job.cell_id) == (JobState.FAILED, "AGENT_FAILED", "it broke", "remote")


async def test_a_parked_job_waits_without_its_driver(book: Books, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    question = Question("push", Origin.POLICY, "May it?", lease.execution_id, 600.0)
    for _ in range(2):
        await remote.park(lease, question)
    assert (await book.store.job(lease.job_id)).state is JobState.AWAITING_APPROVAL
    assert (await remote.beat([lease])).held == frozenset()
    with pytest.raises(LeaseLost):
        await remote.decision(lease, "push")


async def test_whoever_lost_the_lease_is_told_so_by_every_call(book: Books, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    await remote.begin_stage(lease, "base")
    await expire_leases(book)
    new = await claimed(await book.cell("other"))
    before = await book.store.job(lease.job_id)
    note = ExecutionNote(lease.execution_id, Purpose.AGENT, state=ExecutionState.SUCCEEDED)
    for late in (
        remote.begin_stage(lease, "workspace"),
        remote.end_stage(lease, StageEnd(Stage("base", StageState.DONE), [note])),
        remote.note(lease, note),
        remote.attempt(lease),
        remote.document(lease, "base", None),
        remote.park(lease, Question("push", Origin.POLICY, "?", lease.execution_id, 60.0)),
        remote.finish(lease, FAILED),
    ):
        with pytest.raises(LeaseLost):
            await late
    assert (await remote.beat([lease, new])).held == frozenset(), "another's lease is not ours to prolong either"
    assert await book.store.job(lease.job_id) == before


async def test_a_claim_whose_answer_was_lost_is_given_again(book: Books, api: Api) -> None:
    await book.admit()
    await book.admit()
    request = pb.ClaimJobRequest(request_id="claim-1", coordinator_id="simple", capacity=2)
    first = await api.coordinator.ClaimJob(request)
    again = await api.coordinator.ClaimJob(request)
    assert first.job.lease == again.job.lease
    assert first.job == again.job
    assert (first.job.attempt, first.job.last_attempt, first.job.is_moved) == (1, 3, False)
    other = await api.coordinator.ClaimJob(
        pb.ClaimJobRequest(request_id="claim-2", coordinator_id="simple", capacity=2)
    )
    assert other.job.lease.job_id not in {"", first.job.lease.job_id}
    await expire_leases(book)
    await claimed(await book.cell("other"))
    await claimed(await book.cell("other"))
    assert not (await api.coordinator.ClaimJob(request, timeout=1.1)).HasField("job"), (
        "what was taken over is not given"
    )
    request.capacity = 3
    reused = await refusal(api.coordinator.ClaimJob(request))
    assert reused.reason == "REQUEST_ID_REUSED"


async def test_a_claim_waits_for_what_it_wants(book: Books, api: Api) -> None:
    await book.admit()
    claim_filter = ClaimFilter(capacity=1, kinds=("review",), engines=("command",), project_ids=("default",))
    async with (
        remote_ledger(api.address, claim_filter=claim_filter) as picky,
        remote_ledger(api.address, name="other") as other,
    ):
        none = await api.coordinator.ClaimJob(
            pb.ClaimJobRequest(coordinator_id="remote", kinds=["review"]), timeout=1.1
        )
        assert not none.HasField("job"), "an answer, and no DEADLINE_EXCEEDED"
        lease = await claimed(other)
        assert (await picky.beat([lease])).held == frozenset()


@pytest.mark.parametrize("named", ["job", "execution"])
async def test_a_wish_to_end_comes_with_the_beat_and_at_once(
    book: Books, api: Api, remote: RemoteLedger, named: str
) -> None:
    await book.admit()
    lease = await claimed(remote)
    call = api.coordinator.WatchCoordinator(pb.WatchCoordinatorRequest(coordinator_id="remote"))
    assert (await remote.beat([lease])).cancel_requested == frozenset()
    if named == "job":
        await book.store.cancel_job(lease.job_id)
    else:
        await book.store.cancel_execution(lease.execution_id)
    told = await call.read()
    assert isinstance(told, pb.WatchCoordinatorResponse)
    assert list(told.cancel_requested_job_ids) == [lease.job_id]
    call.cancel()
    assert (await remote.beat([lease])).cancel_requested == {lease.job_id}


async def test_a_coordinator_that_was_cut_off_has_room_for_what_it_lost(book: Books, api: Api) -> None:
    """Expired leases that it no longer knew of used to take its capacity for ever."""
    await book.admit()
    async with remote_ledger(api.address, claim_filter=ClaimFilter(capacity=1)) as remote:
        lease = await claimed(remote)
        await expire_leases(book)
        again = await claimed(remote)
    assert (again.job_id, again.attempt, again.fence) == (lease.job_id, 1, lease.fence + 1)


async def test_a_coordinator_is_listed_among_the_cells(book: Books, remote: RemoteLedger) -> None:
    (cell,) = await CellStore(book.engine, LEASE_SECONDS).all()
    assert (cell.cell_id, cell.kind, cell.host, cell.capacity) == ("remote", CellKind.COORDINATOR, "host", 10)
    assert cell.version


async def test_a_restarted_coordinator_has_its_jobs_back_at_once(book: Books, api: Api, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    async with remote_ledger(api.address) as restarted:
        again = await claimed(restarted)
        assert (again.job_id, again.execution_id, again.fence) == (lease.job_id, lease.execution_id, lease.fence + 1)
        with pytest.raises(LeaseLost):
            await remote.begin_stage(lease, "base")


async def test_a_gateway_that_is_away_is_left_for_another(book: Books, api: Api) -> None:
    nobody = "127.0.0.1:1"
    async with Upstream([nobody, api.address], TOKEN) as upstream:
        request = pb.RenewLeaseRequest(coordinator_id="remote")
        with pytest.raises(LedgerUnavailable, match=nobody):
            await upstream.ask(lambda stubs: stubs.coordinator.RenewLease(request))
        assert (await upstream.ask(lambda stubs: stubs.coordinator.RenewLease(request))).HasField("lease_duration")


async def test_at_a_gateway_of_an_earlier_version_nothing_is_registered(book: Books, remote: RemoteLedger) -> None:
    """It says so, waits, and claims nothing: what it held there is released by the upgraded gateway alone."""
    await book.admit()
    lease = await claimed(remote)
    async with (
        coordinator_api(book, has_ledger=False) as earlier,
        remote_ledger(earlier.address, is_registered=False) as restarted,
    ):
        with pytest.raises(LedgerUnavailable, match=r"older than this coordinator .* upgrade the gateway"):
            await restarted.register("a-host")
        with pytest.raises(LedgerUnavailable, match="upgrade the gateway"):
            await restarted.begin_stage(lease, "base")
    assert (await remote.beat([lease])).held == {lease.job_id}


async def test_what_a_gateway_holds_is_nobody_elses(book: Books, api: Api) -> None:
    await book.admit()
    lease = await claimed(await book.cell("cell-of-a-gateway"))
    held = ledger_pb2.Holder(coordinator_id="cell-of-a-gateway", lease=pb.Lease(job_id=lease.job_id, fence=lease.fence))
    stolen = await refusal(api.ledger.BeginStage(ledger_pb2.BeginStageRequest(holder=held, name="base")))
    assert isinstance(stolen, Aborted)
    for call in (
        api.coordinator.RegisterCoordinator(pb.RegisterCoordinatorRequest(coordinator_id=held.coordinator_id)),
        api.coordinator.ClaimJob(pb.ClaimJobRequest(coordinator_id=held.coordinator_id)),
        api.coordinator.RenewLease(pb.RenewLeaseRequest(coordinator_id=held.coordinator_id, leases=[held.lease])),
        api.ledger.ReadJobStatuses(ledger_pb2.ReadJobStatusesRequest(coordinator_id=held.coordinator_id)),
    ):
        refused = await refusal(call)
        assert isinstance(refused, FailedPrecondition)
        assert refused.reason == "NOT_A_COORDINATOR"


async def test_values_that_no_driver_packs_are_refused(book: Books, api: Api, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    holder = ledger_pb2.Holder(coordinator_id="remote", lease=pb.Lease(job_id=lease.job_id, fence=lease.fence))
    for call in (
        api.ledger.FinishJob(ledger_pb2.FinishJobRequest(holder=holder, outcome=b"no")),
        api.ledger.NoteExecution(ledger_pb2.NoteExecutionRequest(holder=holder)),
        api.ledger.ParkJob(ledger_pb2.ParkJobRequest(holder=holder, question=b"{}")),
    ):
        assert isinstance(await refusal(call), Invalid)
    assert (await book.store.job(lease.job_id)).state is JobState.RUNNING


NEEDS: dict[str, dict[str, Any]] = {
    "": {},
    "reserves_model_use": {"policy": Policy(budget=BudgetLimits(requests=1))},
    "replays": {"replay": Matching.STRICT, "recording": b"{}\n"},
}
"""What a job needs of its coordinator, by the field in which one says that it can."""


@pytest.mark.parametrize("need", NEEDS)
async def test_a_coordinator_gets_no_job_that_needs_what_its_version_cannot_do(
    book: Books, api: Api, remote: RemoteLedger, need: str
) -> None:
    """It would ask models what nobody has granted, or what a recording is to answer."""
    await book.admit(**NEEDS[need])
    lease = await claimed(remote)
    holder = ledger_pb2.Holder(coordinator_id="remote", lease=pb.Lease(job_id=lease.job_id, fence=lease.fence))
    for missing in sorted(filter(None, NEEDS), key=need.__eq__):  # what it needs last: then the job is lost
        able = dict.fromkeys(filter(None, NEEDS.keys() - {missing}), True)
        call = api.ledger.ReadJobContext(ledger_pb2.ReadJobContextRequest(holder=holder, **able))
        if missing != need:
            assert (await call).job_context
            continue
        refused = await refusal(call)
        assert (refused.status, refused.reason) == (Status.PERMISSION_DENIED, "COORDINATOR_VERSION")
        assert "upgrade the coordinator" in refused.message
        job = await book.store.job(lease.job_id)
        assert (job.state, job.executions[0].reason) == (JobState.PENDING, "COORDINATOR_VERSION")
        assert refused.message in job.executions[0].message
        taken = await claimed(await book.cell("elsewhere"))
        assert (taken.job_id, taken.attempt, taken.is_moved) == (lease.job_id, 2, False)
        assert taken.last_attempt == lease.last_attempt + 1, "it used up no attempt"


CLAIMS: dict[str, tuple[ClaimFilter, str | None]] = {
    "of any jobs": (ClaimFilter(capacity=10), None),
    "of the project's": (ClaimFilter(capacity=10, project_ids=("default", "other")), None),
    "of another project's": (ClaimFilter(capacity=10, project_ids=("other",)), "takes no jobs of project default"),
    "of another kind": (ClaimFilter(capacity=10, kinds=("merge",)), "takes no jobs of kind "),
    "of another engine": (ClaimFilter(capacity=10, engines=("anthropic",)), "takes no jobs of engine command"),
}


@pytest.mark.parametrize("claims", CLAIMS)
async def test_a_coordinator_is_a_place_for_the_jobs_that_it_takes_alone(book: Books, api: Api, claims: str) -> None:
    claim_filter, lacks = CLAIMS[claims]
    job_id = (await book.admit()).spec.job_id
    async with remote_ledger(api.address, "limited", claim_filter) as coordinator:
        claim = asyncio.ensure_future(coordinator.claim())
        if lacks is None:
            assert await claim is not None
            return
        async with asyncio.timeout(30):
            while (waiting := (await book.store.job(job_id)).waiting_for) is None:
                await asyncio.sleep(0.02)
        assert waiting.kind is WaitsFor.NO_PLACE
        assert waiting.message.startswith(f"no cell has a place: limited {lacks}")
        claim.cancel()
        await asyncio.gather(claim, return_exceptions=True)


def output(sequence: int, data: bytes = b"x") -> Event:
    return Event(sequence=sequence, output={"data": data})


async def append(api: Api, lease: Lease, *batches: list[Event], last: bool = False, execution_id: str = "") -> int:
    key = pb.Lease(job_id=lease.job_id, fence=lease.fence)

    async def requests() -> AsyncIterator[pb.AppendEventsRequest]:
        for number, batch in enumerate(batches):
            is_last = last and number == len(batches) - 1
            yield pb.AppendEventsRequest(
                coordinator_id="remote",
                lease=key,
                execution_id=execution_id or lease.execution_id,
                events=batch,
                is_last=is_last,
            )

    try:
        return (await api.coordinator.AppendEvents(requests())).next_sequence
    except grpc.aio.AioRpcError as error:
        raise service_error(error) from error


async def test_events_are_kept_once_and_in_order(book: Books, api: Api, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    assert await append(api, lease, []) == 1, "none yet: begin with the first"
    assert await append(api, lease, [output(1), output(2)], [output(3)]) == 4
    assert await append(api, lease, [output(2), output(3), output(4)]) == 5, "what was there is not doubled"
    with pytest.raises(OutOfRange) as gap:
        await append(api, lease, [output(9)])
    assert (gap.value.reason, gap.value.end) == ("EVENTS_OUT_OF_RANGE", 5)
    with pytest.raises(Invalid):
        await append(api, lease, [output(5), output(7)])
    assert (await book.store.execution(lease.execution_id)).state is ExecutionState.RUNNING
    await remote.finish(lease, FAILED)
    assert await append(api, lease, [output(5)], last=True) == 6, "its last words may come after its end"
    data, following = await EventStore(book.engine).read(lease.execution_id, 1)
    assert [event.sequence for event in events_from_bytes(data, 1, ())] == [1, 2, 3, 4, 5]
    assert following == 6


async def test_what_a_lost_execution_wrote_is_still_taken(book: Books, api: Api, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    assert await append(api, lease, [output(1)]) == 2
    await expire_leases(book)
    await claimed(await book.cell("other"))
    assert await append(api, lease, [output(2)], last=True) == 3, "nobody else has what it wrote"
    assert (await book.store.execution(lease.execution_id)).reason == "NODE_LOST", "and nothing else changes"


async def test_one_missing_event_is_asked_for(book: Books, api: Api, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    assert await append(api, lease, [output(1)]) == 2
    with pytest.raises(OutOfRange) as gap:
        await append(api, lease, [output(3)])
    assert (gap.value.reason, gap.value.end) == ("EVENTS_OUT_OF_RANGE", 2)
    assert await append(api, lease, [output(2), output(3)]) == 4


async def test_events_of_others_are_not_taken(book: Books, api: Api, remote: RemoteLedger) -> None:
    await book.admit()
    other = await book.admit()
    lease = await claimed(remote)
    with pytest.raises(ServiceError) as error:
        await append(api, lease, [output(1)], execution_id=other.executions[-1].execution_id)
    assert error.value.reason == "EXECUTION_NOT_FOUND"
    await expire_leases(book)
    taken = await claimed(await book.cell("other"))
    with pytest.raises(Aborted):
        await append(api, lease, [output(1)], execution_id=taken.execution_id)


async def test_the_oldest_events_make_room(book: Books, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)
    store = EventStore(book.engine, max_log_bytes=10_000)
    for number in range(1, 31):
        async with book.engine.begin() as connection:
            data = pb.AppendEventsRequest(events=[output(number, b"x" * 1000)]).SerializeToString()
            await store.append(connection, lease.job_id, lease.execution_id, [NumberedEvent(number, data)], last=False)
    log = await store.log(lease.execution_id)
    assert log
    assert 20 < log.first < 30
    assert log.next == 31
    data, _ = await store.read(lease.execution_id, log.first)
    assert [event.sequence for event in events_from_bytes(data, log.first, ())] == list(range(log.first, 31))


async def test_what_is_still_ones_own_is_told(book: Books, api: Api, remote: RemoteLedger) -> None:
    await book.admit()
    lease = await claimed(remote)

    async def standing() -> ledger_pb2.JobStatus:
        asked = ledger_pb2.ReadJobStatusesRequest(coordinator_id="remote", jobs=[lease.job_id, "job-of-nobody"])
        (found,) = (await api.ledger.ReadJobStatuses(asked)).job_statuses
        return found

    assert (await standing()).execution_id == lease.execution_id
    await expire_leases(book)
    assert (await standing()).execution_id == lease.execution_id, "nobody has taken it over yet"
    await claimed(await book.cell("other"))
    assert (await standing()).execution_id == ""
