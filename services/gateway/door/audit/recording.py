"""The server layer that records calls when they end, whichever service they are for and however they ended."""

from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from services.common.errors import Status
from services.common.ids import new_id
from services.common.rpc.auth_failures import TOO_MANY_FAILURES
from services.common.rpc.call import Layer, RpcCall
from services.gateway.door.audit import wire
from services.gateway.door.audit.model import OK, REFUSED, AuditRecord
from services.gateway.door.audit.trail import AuditTrail
from services.gateway.values.principal import OURSELVES, current_principal

_MAX_TEXT = 255
_ASKED_AGAIN = {"COORDINATOR_VERSION"}
"""Who is refused for these reasons may call, and calls every few seconds until the versions match."""


def recording(trail: AuditTrail, cell_id: str, changing: Container[str]) -> Layer:
    """Make the layer that records all calls of `changing` RPCs (by path), and the refused calls of the others."""

    @asynccontextmanager
    async def layer(call: RpcCall) -> AsyncIterator[None]:
        try:
            yield
        finally:
            is_refused = (
                call.status in REFUSED and call.reason not in _ASKED_AGAIN
            ) or call.reason == TOO_MANY_FAILURES
            if (call.method in changing or is_refused) and not call.is_quiet:
                trail.note(_record(call, cell_id))

    return layer


def _record(call: RpcCall, cell_id: str) -> AuditRecord:
    principal = None if call.status is Status.UNAUTHENTICATED else current_principal()
    if principal is OURSELVES:  # refused before anybody knew who calls
        principal = None
    origin = principal.origin if principal else call.context.peer()
    return AuditRecord(
        record_id=new_id("audit"),
        time=datetime.now(UTC),
        caller=principal.name[:_MAX_TEXT] if principal else "",
        token_id=principal.token_id if principal else "",
        role=principal.role if principal else "",
        origin=origin[:_MAX_TEXT],
        cell_id=cell_id,
        forwarded_by=principal.forwarded_by if principal else "",
        method=call.method.rpartition(".")[2],
        resources=wire.resources_of(call.request, call.answer) if principal else (),
        status=call.status or OK,
        reason=call.reason or "",
        request_id=call.request_id,
    )
