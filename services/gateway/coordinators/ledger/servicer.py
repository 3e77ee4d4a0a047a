"""The RPCs of LedgerService: each calls one method of the lifecycle's `Ledger`."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import grpc
from boatyard.ledger.v1 import ledger_pb2 as pb
from boatyard.ledger.v1.ledger_pb2_grpc import LedgerServiceServicer
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from services.agent.wire import PROVIDER
from services.common.rpc.times import timestamp_to_proto
from services.gateway.coordinators.ledger import wire
from services.gateway.coordinators.ledgers import CoordinatorLedgers
from services.gateway.coordinators.model import coordinator_cell
from services.gateway.coordinators.store import CoordinatorStore
from services.gateway.coordinators.versions import EARLIER_WAIT_SECONDS, Versions
from services.lifecycle.ledger import Lease, Ledger
from services.lifecycle.model.job_context import JobContext
from services.lifecycle.model.value import pack

Context = aio.ServicerContext[Any, Any]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["LedgerService"]
_EARLIER_SERVICE: Final = "boatyard.gateway.v1.LedgerService"
_EARLIER_NAMES: Final = {"ReadJobContext": "ReadSurroundings", "ReadJobStatuses": "ReadStandings"}
EARLIER_METHODS: Final = {
    f"/{_EARLIER_SERVICE}/{_EARLIER_NAMES.get(method.name, method.name)}": method for method in _SERVICE.methods
}
"""The RPCs by the paths at which coordinators of earlier versions call them, with the same requests on the wire."""


class LedgerServicer(LedgerServiceServicer):
    """Serves boatyard.ledger.v1.LedgerService."""

    def __init__(self, store: CoordinatorStore, ledgers: CoordinatorLedgers, versions: Versions) -> None:
        self._versions = versions
        self._store = store
        self._ledgers = ledgers

    async def ReadAttempt(self, request: pb.ReadAttemptRequest, context: Context) -> pb.ReadAttemptResponse:
        async with self._holding(request.holder) as (ledger, lease):
            attempt = await ledger.attempt(lease)
        stages = map(wire.stage_to_proto, attempt.stages.values())
        return pb.ReadAttemptResponse(stages=stages, note=pack(attempt.execution))

    async def ReadJobContext(self, request: pb.ReadJobContextRequest, context: Context) -> pb.ReadJobContextResponse:
        async with self._holding(request.holder) as (ledger, lease):
            job_context = (await ledger.attempt(lease)).context
        if lack := _lack(request, job_context):
            held = request.holder
            what = f"{lack} at this gateway"
            raise await self._versions.refusal_of_job(held.coordinator_id, held.lease.job_id, what)
        return pb.ReadJobContextResponse(job_context=pack(job_context))

    async def ReadDocument(self, request: pb.ReadDocumentRequest, context: Context) -> pb.ReadDocumentResponse:
        outcome = wire.expected_outcome_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            document = await ledger.document(lease, request.stage, outcome)
        return pb.ReadDocumentResponse(document=document.data.decode(), time=timestamp_to_proto(document.time))

    async def ReadSigningKey(self, request: pb.ReadSigningKeyRequest, context: Context) -> pb.ReadSigningKeyResponse:
        async with self._holding(request.holder) as (ledger, lease):
            return pb.ReadSigningKeyResponse(key=await ledger.signing_key(lease, request.hook_id))

    async def ReadProviders(self, request: pb.ReadProvidersRequest, context: Context) -> pb.ReadProvidersResponse:
        async with self._holding(request.holder) as (ledger, lease):
            return pb.ReadProvidersResponse(providers=map(PROVIDER.to_proto, await ledger.providers(lease)))

    async def ReserveModelUse(self, request: pb.ReserveModelUseRequest, context: Context) -> pb.ReserveModelUseResponse:
        need = wire.need_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            return pb.ReserveModelUseResponse(granting=pack(await ledger.reserve(lease, need)))

    async def SettleModelUse(self, request: pb.SettleModelUseRequest, context: Context) -> pb.SettleModelUseResponse:
        use = wire.use_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.settle(lease, use)
        return pb.SettleModelUseResponse()

    async def RecordHookCall(self, request: pb.RecordHookCallRequest, context: Context) -> pb.RecordHookCallResponse:
        call = wire.hook_call_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.record_call(lease, call)
        return pb.RecordHookCallResponse()

    async def BeginStage(self, request: pb.BeginStageRequest, context: Context) -> pb.BeginStageResponse:
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.begin_stage(lease, request.name)
        return pb.BeginStageResponse()

    async def EndStage(self, request: pb.EndStageRequest, context: Context) -> pb.EndStageResponse:
        ended = wire.stage_end_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.end_stage(lease, ended)
        return pb.EndStageResponse()

    async def NoteExecution(self, request: pb.NoteExecutionRequest, context: Context) -> pb.NoteExecutionResponse:
        note = wire.note_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.note(lease, note)
        return pb.NoteExecutionResponse()

    async def ParkJob(self, request: pb.ParkJobRequest, context: Context) -> pb.ParkJobResponse:
        question = wire.question_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.park(lease, question)
        return pb.ParkJobResponse()

    async def ReadDecision(self, request: pb.ReadDecisionRequest, context: Context) -> pb.ReadDecisionResponse:
        async with self._holding(request.holder) as (ledger, lease):
            decision = await ledger.decision(lease, request.name)
        return pb.ReadDecisionResponse(decision=b"" if decision is None else pack(decision))

    async def RetryLater(self, request: pb.RetryLaterRequest, context: Context) -> pb.RetryLaterResponse:
        retry = wire.retry_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.retry(lease, retry)
        return pb.RetryLaterResponse()

    async def FinishJob(self, request: pb.FinishJobRequest, context: Context) -> pb.FinishJobResponse:
        outcome = wire.outcome_from_proto(request)
        async with self._holding(request.holder) as (ledger, lease):
            await ledger.finish(lease, outcome)
        return pb.FinishJobResponse()

    async def ReadJobStatuses(self, request: pb.ReadJobStatusesRequest, context: Context) -> pb.ReadJobStatusesResponse:
        await self._store.enrol(coordinator_cell(request.coordinator_id))
        statuses = await self._store.job_statuses(request.coordinator_id, request.jobs)
        return pb.ReadJobStatusesResponse(
            job_statuses=[wire.job_status_to_proto(job_id, status) for job_id, status in statuses.items()]
        )

    def _holding(self, holder: pb.Holder) -> AbstractAsyncContextManager[tuple[Ledger, Lease]]:
        return self._ledgers.holding(wire.holder_from_proto(holder))


class EarlierLedgerServicer:
    """Refuses the calls of coordinators of earlier versions, so that they wait and keep their jobs; see decision 33."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    def add_to_server(self, server: aio.Server) -> None:
        """Serve all paths of EARLIER_METHODS."""
        handlers = {
            path.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(
                self.refuse,
                request_deserializer=_caller_of(method).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for path, method in EARLIER_METHODS.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_EARLIER_SERVICE, handlers),))

    async def refuse(self, request: Message, context: Context) -> Message:
        """Raise PermissionDenied (COORDINATOR_VERSION), after a while."""
        coordinator_id = str(getattr(getattr(request, "holder", request), "coordinator_id", ""))
        await asyncio.sleep(EARLIER_WAIT_SECONDS)
        text = f"calls {_EARLIER_SERVICE}, which this gateway serves as {_SERVICE.full_name}"
        raise await self._versions.refusal(coordinator_id, text, service=_SERVICE.full_name)


def _lack(request: pb.ReadJobContextRequest, job_context: JobContext) -> str:
    """Say what the coordinator cannot do that the job needs; empty for nothing."""
    if job_context.has_budgets and not request.reserves_model_use:
        return "does not reserve what its agents ask of models, and the job has a budget"
    if job_context.recording and not request.replays:
        return "asks models where a recording is to answer, and the job has one"
    return ""


def _caller_of(method: MethodDescriptor) -> type[Message]:
    """Return the type as which a request is read for who calls: the rest need not keep this version's rules."""
    kind = GetMessageClass(method.input_type)
    return pb.ReadAttemptRequest if "holder" in kind.DESCRIPTOR.fields_by_name else kind
