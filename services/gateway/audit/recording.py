"""Where every call of the gateway passes by on its way out, whoever serves it and whatever came of it."""

from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from services.common.errors import Status
from services.common.ids import new_id
from services.common.rpc.auth_failures import TOO_MANY_FAILURES
from services.common.rpc.call import Layer, RpcCall
from services.gateway.audit import wire
from services.gateway.audit.model import OK, REFUSED, Record
from services.gateway.audit.trail import Trail
from services.gateway.auth.current import current_access

_WORDS = 255


def recording(trail: Trail, cell_id: str, changing: Container[str]) -> Layer:
    """Record the calls of `changing` RPCs (by their paths), and of all others those that are refused."""

    @asynccontextmanager
    async def layer(call: RpcCall) -> AsyncIterator[None]:
        try:
            yield
        finally:
            is_refused = call.status in REFUSED or call.reason == TOO_MANY_FAILURES
            if (call.method in changing or is_refused) and not call.is_quiet:
                trail.note(_record(call, cell_id))

    return layer


def _record(call: RpcCall, cell_id: str) -> Record:
    is_nobodys = call.status is Status.UNAUTHENTICATED or call.reason == TOO_MANY_FAILURES
    access = None if is_nobodys else current_access()
    origin = access.origin if access else call.context.peer()
    return Record(
        record_id=new_id("audit"),
        time=datetime.now(UTC),
        caller=access.name[:_WORDS] if access else "",
        token_id=access.token_id if access else "",
        role=access.role if access else "",
        origin=origin[:_WORDS],
        cell_id=cell_id,
        forwarded_by=access.forwarded_by if access else "",
        method=call.method.rpartition(".")[2],
        resources=wire.resources_of(call.request, call.answer) if access else (),
        status=call.status or OK,
        reason=call.reason or "",
        request_id=call.request_id,
    )
