"""The RPCs of LedgerService: each calls one method of the lifecycle's `Ledger`."""

from typing import Any

from boatyard.gateway.v1 import ledger_pb2 as pb
from boatyard.gateway.v1.ledger_pb2_grpc import LedgerServiceServicer
from grpc import aio

from services.gateway.coordinators.ledger import wire
from services.gateway.coordinators.ledgers import CoordinatorLedgers
from services.gateway.coordinators.model import coordinator_cell
from services.gateway.coordinators.store import CoordinatorStore
from services.gateway.wire.times import timestamp_to_proto
from services.gateway.wire.validation import Validator
from services.lifecycle.model.value import pack

Context = aio.ServicerContext[Any, Any]


class LedgerServicer(LedgerServiceServicer):
    """Serves boatyard.gateway.v1.LedgerService."""

    def __init__(self, store: CoordinatorStore, ledgers: CoordinatorLedgers) -> None:
        self._store = store
        self._ledgers = ledgers

    async def ReadAttempt(self, request: pb.ReadAttemptRequest, context: Context) -> pb.ReadAttemptResponse:
        with Validator() as check:
            held = wire.holder_from_proto(check, request.holder)
        async with self._ledgers.holding(held) as (ledger, lease):
            stages = (await ledger.stages(lease)).values()
            note = await ledger.execution(lease)
        return pb.ReadAttemptResponse(stages=map(wire.stage_to_proto, stages), note=pack(note))

    async def ReadSurroundings(
        self, request: pb.ReadSurroundingsRequest, context: Context
    ) -> pb.ReadSurroundingsResponse:
        with Validator() as check:
            held = wire.holder_from_proto(check, request.holder)
        async with self._ledgers.holding(held) as (ledger, lease):
            return pb.ReadSurroundingsResponse(surroundings=pack(await ledger.job_context(lease)))

    async def ReadDocument(self, request: pb.ReadDocumentRequest, context: Context) -> pb.ReadDocumentResponse:
        held, stage, outcome = wire.document_request_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            document = await ledger.document(lease, stage, outcome)
        return pb.ReadDocumentResponse(document=document.data.decode(), time=timestamp_to_proto(document.time))

    async def ReadSigningKey(self, request: pb.ReadSigningKeyRequest, context: Context) -> pb.ReadSigningKeyResponse:
        with Validator() as check:
            held = wire.holder_from_proto(check, request.holder)
            hook_id = check.required_id("hook_id", request.hook_id)
        async with self._ledgers.holding(held) as (ledger, lease):
            return pb.ReadSigningKeyResponse(key=await ledger.signing_key(lease, hook_id))

    async def RecordHookCall(self, request: pb.RecordHookCallRequest, context: Context) -> pb.RecordHookCallResponse:
        held, call = wire.hook_call_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            await ledger.record_call(lease, call)
        return pb.RecordHookCallResponse()

    async def BeginStage(self, request: pb.BeginStageRequest, context: Context) -> pb.BeginStageResponse:
        with Validator() as check:
            held = wire.holder_from_proto(check, request.holder)
            name = wire.name_from_proto(check, "name", request.name)
        async with self._ledgers.holding(held) as (ledger, lease):
            await ledger.begin_stage(lease, name)
        return pb.BeginStageResponse()

    async def EndStage(self, request: pb.EndStageRequest, context: Context) -> pb.EndStageResponse:
        held, stage, notes = wire.ended_stage_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            await ledger.end_stage(lease, stage, notes)
        return pb.EndStageResponse()

    async def NoteExecution(self, request: pb.NoteExecutionRequest, context: Context) -> pb.NoteExecutionResponse:
        held, note = wire.note_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            await ledger.note(lease, note)
        return pb.NoteExecutionResponse()

    async def ParkJob(self, request: pb.ParkJobRequest, context: Context) -> pb.ParkJobResponse:
        held, question = wire.question_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            await ledger.park(lease, question)
        return pb.ParkJobResponse()

    async def ReadDecision(self, request: pb.ReadDecisionRequest, context: Context) -> pb.ReadDecisionResponse:
        with Validator() as check:
            held = wire.holder_from_proto(check, request.holder)
            name = wire.name_from_proto(check, "name", request.name)
        async with self._ledgers.holding(held) as (ledger, lease):
            decision = await ledger.decision(lease, name)
        return pb.ReadDecisionResponse(decision=b"" if decision is None else pack(decision))

    async def RetryLater(self, request: pb.RetryLaterRequest, context: Context) -> pb.RetryLaterResponse:
        held, retry = wire.retry_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            await ledger.retry(lease, retry)
        return pb.RetryLaterResponse()

    async def FinishJob(self, request: pb.FinishJobRequest, context: Context) -> pb.FinishJobResponse:
        held, outcome = wire.outcome_from_proto(request)
        async with self._ledgers.holding(held) as (ledger, lease):
            await ledger.finish(lease, outcome)
        return pb.FinishJobResponse()

    async def ReadStandings(self, request: pb.ReadStandingsRequest, context: Context) -> pb.ReadStandingsResponse:
        coordinator_id, job_ids = wire.job_statuses_request_from_proto(request)
        await self._store.enrol(coordinator_cell(coordinator_id))
        statuses = await self._store.job_statuses(coordinator_id, job_ids)
        return pb.ReadStandingsResponse(
            standings=[wire.job_status_to_proto(job_id, status) for job_id, status in statuses.items()]
        )
