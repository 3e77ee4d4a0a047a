"""The driver's ledger, kept by a remote gateway: each method is an RPC that may be repeated."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from importlib.metadata import version
from typing import Final

from boatyard.gateway.v1 import coordinator_pb2
from boatyard.ledger.v1 import ledger_pb2

from services.agent.allowance import DEFAULT_ALLOWANCE, Allowance
from services.agent.providers import ModelProvider
from services.agent.wire import PROVIDER, allowance_to_proto
from services.common.errors import Status
from services.common.ids import new_id
from services.common.rpc.times import seconds_from_proto
from services.coordinator import wire
from services.coordinator.clients import Upstream, UpstreamUnavailable
from services.coordinator.event_forwarding import EventForwarder
from services.lifecycle.ledger import Attempt, Beat, Document, Lease, LeaseLost, StageEnd
from services.lifecycle.model.budgets import Granting, ModelNeed, Settlement
from services.lifecycle.model.checkpoint import Decision, Question
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.hook_calls import HookCall
from services.lifecycle.model.job_context import JobContext
from services.lifecycle.model.outcome import Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import ExecutionState
from services.lifecycle.model.value import pack, unpack
from services.lifecycle.nodes.wire import TROUBLE

_CLAIM_SECONDS: Final = 20.0
"""The deadline of a claim: a gateway answers within 16 s, so a broken link is noticed."""
_CALL_SECONDS: Final = 5.0
"""The deadline of all other calls: well within a lease, so that there is time to ask another gateway."""


@dataclass(frozen=True, slots=True)
class ClaimFilter:
    """Which jobs a coordinator claims; an empty field matches all. `capacity` is how many it may hold at once."""

    capacity: int
    project_ids: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()


class RemoteLedger:
    """Implements services.lifecycle.ledger.Ledger for one coordinator.

    `forwarder` sends the events of every execution that was started under a lease of ours.
    """

    def __init__(
        self, upstream: Upstream, coordinator_id: str, claim_filter: ClaimFilter, forwarder: EventForwarder
    ) -> None:
        self._upstream = upstream
        self._coordinator_id = coordinator_id
        self._filter = claim_filter
        self._forwarder = forwarder
        self._lease_seconds = 0.0
        self._claim_id = new_id("lease")

    @property
    def lease_seconds(self) -> float:
        """The lease's length as the gateway last said; 0 before `register`."""
        return self._lease_seconds

    async def register(self, host: str, allowance: Allowance = DEFAULT_ALLOWANCE) -> int:
        """Register this coordinator; return how many jobs it still holds from before. Must precede the first claim.

        `allowance` is what its node lets jobs choose.

        Only at a gateway that serves our ledger: registering releases the jobs, and another would not let us continue.
        """
        probe = ledger_pb2.ReadJobStatusesRequest(coordinator_id=self._coordinator_id)
        await self._upstream.ask(lambda stubs: stubs.ledger.ReadJobStatuses(probe, timeout=_CALL_SECONDS))
        request = coordinator_pb2.RegisterCoordinatorRequest(
            coordinator_id=self._coordinator_id,
            host=host,
            version=version("boatyard"),
            capacity=self._filter.capacity,
            **allowance_to_proto(allowance),
        )
        answer = await self._upstream.ask(
            lambda stubs: stubs.coordinator.RegisterCoordinator(request, timeout=_CALL_SECONDS)
        )
        self._lease_seconds = seconds_from_proto(answer.lease_duration)
        return answer.jobs_held

    async def report(self, condition: Condition) -> None:
        """Report this machine's condition; a gateway of a version before cannot be told it, and is not."""
        request = coordinator_pb2.ReportConditionRequest(
            coordinator_id=self._coordinator_id,
            troubles=map(TROUBLE.to_proto, condition.troubles),
            agents=condition.agents or {},
            **allowance_to_proto(condition.allowance),
        )
        try:
            await self._upstream.ask(lambda stubs: stubs.coordinator.ReportCondition(request, timeout=_CALL_SECONDS))
        except UpstreamUnavailable as error:
            if error.error.status is not Status.UNIMPLEMENTED:
                raise

    async def claim(self) -> Lease | None:
        """Wait a while for a job. A claim whose answer was lost is repeated with the same id."""
        request = coordinator_pb2.ClaimJobRequest(
            request_id=self._claim_id,
            coordinator_id=self._coordinator_id,
            capacity=self._filter.capacity,
            project_ids=self._filter.project_ids,
            kinds=self._filter.kinds,
            engines=self._filter.engines,
        )
        answer = await self._upstream.ask(lambda stubs: stubs.coordinator.ClaimJob(request, timeout=_CLAIM_SECONDS))
        self._claim_id = new_id("lease")
        return wire.lease_from_proto(answer.job) if answer.HasField("job") else None

    async def beat(self, leases: Collection[Lease]) -> Beat:
        request = coordinator_pb2.RenewLeaseRequest(
            coordinator_id=self._coordinator_id, leases=map(wire.lease_to_proto, leases)
        )
        # A call that takes longer than the pause between heartbeats is better repeated at another gateway.
        timeout = min(_CALL_SECONDS, self._lease_seconds / 3)
        answer = await self._upstream.ask(lambda stubs: stubs.coordinator.RenewLease(request, timeout=timeout))
        self._lease_seconds = seconds_from_proto(answer.lease_duration)
        return wire.beat_from_proto(answer)

    async def attempt(self, lease: Lease) -> Attempt:
        """Begin to send the events of its agent, too."""
        recorded, context = ledger_pb2.ReadAttemptRequest, ledger_pb2.ReadJobContextRequest
        of_attempt, of_job = (
            recorded(holder=self._holder(lease)),
            context(holder=self._holder(lease), reserves_model_use=True, replays=True),
        )
        answer = await self._upstream.ask(lambda stubs: stubs.ledger.ReadAttempt(of_attempt, timeout=_CALL_SECONDS))
        needs = await self._upstream.ask(lambda stubs: stubs.ledger.ReadJobContext(of_job, timeout=_CALL_SECONDS))
        note = unpack(ExecutionNote, answer.note)
        self._noted(lease, note)
        stages = map(wire.stage_from_proto, answer.stages)
        return Attempt({stage.name: stage for stage in stages}, note, unpack(JobContext, needs.job_context))

    async def document(self, lease: Lease, stage: str, outcome: Outcome | None) -> Document:
        packed = b"" if outcome is None else pack(outcome)
        request = ledger_pb2.ReadDocumentRequest(holder=self._holder(lease), stage=stage, outcome=packed)
        answer = await self._upstream.ask(lambda stubs: stubs.ledger.ReadDocument(request, timeout=_CALL_SECONDS))
        return Document(answer.document.encode(), answer.time.ToDatetime(UTC))

    async def signing_key(self, lease: Lease, hook_id: str) -> bytes:
        request = ledger_pb2.ReadSigningKeyRequest(holder=self._holder(lease), hook_id=hook_id)
        answer = await self._upstream.ask(lambda stubs: stubs.ledger.ReadSigningKey(request, timeout=_CALL_SECONDS))
        return answer.key

    async def providers(self, lease: Lease) -> tuple[ModelProvider, ...]:
        request = ledger_pb2.ReadProvidersRequest(holder=self._holder(lease))
        answer = await self._upstream.ask(lambda stubs: stubs.ledger.ReadProviders(request, timeout=_CALL_SECONDS))
        return tuple(map(PROVIDER.from_proto, answer.providers))

    async def reserve(self, lease: Lease, need: ModelNeed) -> Granting:
        request = ledger_pb2.ReserveModelUseRequest(holder=self._holder(lease), need=pack(need))
        answer = await self._upstream.ask(lambda stubs: stubs.ledger.ReserveModelUse(request, timeout=_CALL_SECONDS))
        return unpack(Granting, answer.granting)

    async def settle(self, lease: Lease, use: Settlement) -> None:
        request = ledger_pb2.SettleModelUseRequest(holder=self._holder(lease), use=pack(use))
        await self._upstream.ask(lambda stubs: stubs.ledger.SettleModelUse(request, timeout=_CALL_SECONDS))

    async def record_call(self, lease: Lease, call: HookCall) -> None:
        request = ledger_pb2.RecordHookCallRequest(holder=self._holder(lease), call=pack(call))
        await self._upstream.ask(lambda stubs: stubs.ledger.RecordHookCall(request, timeout=_CALL_SECONDS))

    async def begin_stage(self, lease: Lease, name: str, ended: Sequence[StageEnd] = ()) -> None:
        await self._end_stages(lease, ended)
        request = ledger_pb2.BeginStageRequest(holder=self._holder(lease), name=name)
        await self._upstream.ask(lambda stubs: stubs.ledger.BeginStage(request, timeout=_CALL_SECONDS))

    async def end_stage(self, lease: Lease, ended: StageEnd) -> None:
        request = ledger_pb2.EndStageRequest(
            holder=self._holder(lease), stage=wire.stage_to_proto(ended.stage), notes=map(pack, ended.notes)
        )
        await self._upstream.ask(lambda stubs: stubs.ledger.EndStage(request, timeout=_CALL_SECONDS))
        self._noted(lease, *ended.notes)

    async def note(self, lease: Lease, note: ExecutionNote) -> None:
        request = ledger_pb2.NoteExecutionRequest(holder=self._holder(lease), note=pack(note))
        await self._upstream.ask(lambda stubs: stubs.ledger.NoteExecution(request, timeout=_CALL_SECONDS))
        self._noted(lease, note)

    async def park(self, lease: Lease, question: Question) -> None:
        await self._forwarder.flush(lease.job_id)
        request = ledger_pb2.ParkJobRequest(holder=self._holder(lease), question=pack(question))
        await self._upstream.ask(lambda stubs: stubs.ledger.ParkJob(request, timeout=_CALL_SECONDS))

    async def decision(self, lease: Lease, name: str) -> Decision | None:
        request = ledger_pb2.ReadDecisionRequest(holder=self._holder(lease), name=name)
        answer = await self._upstream.ask(lambda stubs: stubs.ledger.ReadDecision(request, timeout=_CALL_SECONDS))
        return unpack(Decision, answer.decision) if answer.decision else None

    async def retry(self, lease: Lease, retry: Retry, ended: Sequence[StageEnd] = ()) -> None:
        """Send the attempt's last events first."""
        await self._end_last_stages(lease, ended)
        await self._forwarder.flush(lease.job_id)
        request = ledger_pb2.RetryLaterRequest(holder=self._holder(lease), retry=pack(retry))
        await self._upstream.ask(lambda stubs: stubs.ledger.RetryLater(request, timeout=_CALL_SECONDS))

    async def finish(self, lease: Lease, outcome: Outcome, ended: Sequence[StageEnd] = ()) -> None:
        """Send the job's last events first, so that whoever watches the job to its end has seen them."""
        await self._end_last_stages(lease, ended)
        await self._forwarder.flush(lease.job_id)
        request = ledger_pb2.FinishJobRequest(holder=self._holder(lease), outcome=pack(outcome))
        await self._upstream.ask(lambda stubs: stubs.ledger.FinishJob(request, timeout=_CALL_SECONDS))

    async def _end_stages(self, lease: Lease, ended: Sequence[StageEnd]) -> None:
        for each in ended:
            await self.end_stage(lease, each)

    async def _end_last_stages(self, lease: Lease, ended: Sequence[StageEnd]) -> None:
        with suppress(LeaseLost):  # perhaps we have given the job back, and the answer was lost: the next call tells
            await self._end_stages(lease, ended)

    def _noted(self, lease: Lease, *notes: ExecutionNote) -> None:
        for note in notes:
            if note.state is not ExecutionState.PENDING:
                self._forwarder.follow(lease, note.execution_id)

    def _holder(self, lease: Lease) -> ledger_pb2.Holder:
        return ledger_pb2.Holder(coordinator_id=self._coordinator_id, lease=wire.lease_to_proto(lease))
