"""The RPCs of HookService: they translate between messages and the stores."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from boatyard.gateway.v1 import hook_pb2 as pb
from boatyard.gateway.v1.hook_pb2_grpc import HookServiceServicer
from grpc import aio

from services.gateway.hooks import wire
from services.gateway.hooks.calls import CallStore
from services.gateway.hooks.store import HookStore
from services.gateway.wire.requests import idempotency_key, page_from_proto
from services.lifecycle.hook_dry_run import HookDryRun
from services.lifecycle.webhooks import AllowList

DocumentOf = Callable[[str], Awaitable[bytes]]
"""Returns the document that hooks get of the job with this id. Raises NotFound."""

Context = aio.ServicerContext[Any, Any]


class HookServicer(HookServiceServicer):
    """Serves boatyard.gateway.v1.HookService."""

    def __init__(
        self, hooks: HookStore, calls: CallStore, allowed: AllowList, dry_run: HookDryRun, document_of: DocumentOf
    ) -> None:
        self._hooks = hooks
        self._calls = calls
        self._form = wire.hook_form(allowed)
        self._dry_run = dry_run
        self._document_of = document_of

    async def CreateHook(self, request: pb.CreateHookRequest, context: Context) -> pb.CreateHookResponse:
        hook = await self._hooks.create(wire.hook_from_proto(request.hook), idempotency_key(request))
        return pb.CreateHookResponse(hook=wire.hook_to_proto(hook, with_secret=True))

    async def ListHooks(self, request: pb.ListHooksRequest, context: Context) -> pb.ListHooksResponse:
        hooks, token = await self._hooks.page(request.project_id, page_from_proto(request))
        return pb.ListHooksResponse(hooks=map(wire.hook_to_proto, hooks), next_page_token=token)

    async def GetHook(self, request: pb.GetHookRequest, context: Context) -> pb.GetHookResponse:
        return pb.GetHookResponse(hook=wire.hook_to_proto(await self._hooks.get(request.hook_id)))

    async def UpdateHook(self, request: pb.UpdateHookRequest, context: Context) -> pb.UpdateHookResponse:
        hook = await self._hooks.update(*self._form.change_from_proto(request))
        shown = wire.hook_to_proto(hook, with_secret=wire.may_change_secret(request))
        return pb.UpdateHookResponse(hook=shown)

    async def DeleteHook(self, request: pb.DeleteHookRequest, context: Context) -> pb.DeleteHookResponse:
        await self._hooks.delete(request.hook_id, datetime.now(UTC))
        return pb.DeleteHookResponse()

    async def ListHookCalls(self, request: pb.ListHookCallsRequest, context: Context) -> pb.ListHookCallsResponse:
        calls, token = await self._calls.page(*wire.list_hook_calls_from_proto(request))
        return pb.ListHookCallsResponse(calls=map(wire.call_to_proto, calls), next_page_token=token)

    async def DryRunHook(self, request: pb.DryRunHookRequest, context: Context) -> pb.DryRunHookResponse:
        hook, key = await self._hooks.get_with_key(request.hook_id)
        document = await self._document_of(request.job_id) if request.job_id else wire.sample_document(hook)
        return wire.dry_run_to_proto(await self._dry_run.call(hook.to_call(), key, document))
