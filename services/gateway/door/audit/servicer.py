"""The RPC of audit records: from the wire to the store and back."""

from typing import Any

from boatyard.gateway.v1 import audit_pb2 as pb
from boatyard.gateway.v1.audit_pb2_grpc import AuditServiceServicer
from grpc import aio

from services.gateway import scope
from services.gateway.door.audit import wire
from services.gateway.door.audit.store import AuditStore
from services.gateway.wire.requests import page_from_proto

Context = aio.ServicerContext[Any, Any]


class AuditServicer(AuditServiceServicer):
    """Serves boatyard.gateway.v1.AuditService."""

    def __init__(self, records: AuditStore) -> None:
        self._records = records

    async def ListAuditRecords(
        self, request: pb.ListAuditRecordsRequest, context: Context
    ) -> pb.ListAuditRecordsResponse:
        scope.check_all()
        records, following = await self._records.page(wire.audit_filter_from_proto(request), page_from_proto(request))
        return pb.ListAuditRecordsResponse(records=map(wire.record_to_proto, records), next_page_token=following)
