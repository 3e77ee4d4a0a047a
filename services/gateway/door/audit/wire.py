"""Converts between messages and audit records, and finds what a call named."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from boatyard.access.v1 import access_pb2
from boatyard.agent.v1 import sandbox_pb2
from boatyard.agent.v1.agent_pb2 import AgentSettings
from boatyard.gateway.v1 import audit_pb2 as pb
from boatyard.gateway.v1.job_pb2 import JobSpec
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from services.common.ids import is_id
from services.common.rpc.mapper import Mapper
from services.gateway.door.audit.model import AuditFilter, AuditRecord
from services.gateway.values.principal import Role
from services.gateway.wire.access import ROLE_NUMBERS

MAX_RESOURCES: Final = 20
_BARE: Final = "sandbox_tier/none"
_WAIVED: Final = "floors/waived"

_ID_FIELD: Final = re.compile(r"(\w+)_ids?")
_NO_RESOURCES: Final = {"request", "message", "permission"}
_RECORD: Final = Mapper(
    AuditRecord, pb.AuditRecord, by_hand={"record_id", "role", "forwarded_by", "forwarded_by_cell_id"}
)
_FILTER: Final = Mapper(AuditFilter, pb.ListAuditRecordsRequest, by_hand={"page_size", "page_token"})


def recorded_methods(services: Iterable[str]) -> frozenset[str]:
    """Return the paths of the RPCs of services (full names) that change something and are not for coordinators."""
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in map(Default().FindServiceByName, services)
        for method in service.methods
        if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        if method.GetOptions().Extensions[access_pb2.required_role] != access_pb2.ROLE_COORDINATOR
    )


def resources_of(request: Message | None, answer: Message | None) -> tuple[str, ...]:
    """Return the resources that a call named, and those that it made, written like job/job-01kb2v.

    First comes what takes a border away: sandbox_tier/none for a call that chose it, or whose answer has it, and
    floors/waived for a job without the floors of its project and template.
    """
    both = [message for message in (request, answer) if message is not None]
    borders = [_BARE] if any(map(_is_bare, both)) else []
    if any(map(_waives_floors, (request, getattr(answer, "job", None)))):
        borders.append(_WAIVED)
    named = [] if request is None else list(_ids(request))
    made = [] if answer is None else list(_made(answer))
    return tuple(dict.fromkeys(borders + named + made))[:MAX_RESOURCES]


def audit_filter_from_proto(request: pb.ListAuditRecordsRequest) -> AuditFilter:
    """Read which records to list."""
    return _FILTER.from_proto(request)


def record_to_proto(record: AuditRecord) -> pb.AuditRecord:
    """Convert a record into its message."""
    role = ROLE_NUMBERS[Role(record.role)] if record.role else access_pb2.ROLE_UNSPECIFIED
    return _RECORD.to_proto(record, role=role, forwarded_by_cell_id=record.forwarded_by)


def _ids(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            if not field.message_type.GetOptions().map_entry:
                for part in value if field.is_repeated else (value,):
                    yield from _ids(part)
        elif (id_field := _ID_FIELD.fullmatch(field.name)) and id_field[1] not in _NO_RESOURCES:
            for resource_id in value if field.is_repeated else (value,):
                if isinstance(resource_id, str) and is_id(resource_id):
                    yield f"{id_field[1]}/{resource_id}"


def _is_bare(message: Message) -> bool:
    """Return True when settings of an agent anywhere in a message have sandbox tier NONE."""
    if isinstance(message, AgentSettings):
        return message.sandbox_tier == sandbox_pb2.SANDBOX_TIER_NONE
    return any(
        _is_bare(part)
        for field, value in message.ListFields()
        if field.message_type is not None and not field.message_type.GetOptions().map_entry
        for part in (value if field.is_repeated else (value,))
    )


def _waives_floors(message: Message | None) -> bool:
    """Return True when what a message asks for, or a job is, has no floors."""
    spec = getattr(message, "spec", None)
    return isinstance(spec, JobSpec) and spec.waive_floors


def _made(answer: Message) -> Iterator[str]:
    """Yield the ids in an answer itself, and each resource's own id in it, such as job_id in `job`."""
    for field, value in answer.ListFields():
        if field.is_repeated:
            continue
        if field.message_type is None:
            if (id_field := _ID_FIELD.fullmatch(field.name)) and isinstance(value, str) and is_id(value):
                yield f"{id_field[1]}/{value}"
        elif resource_id := getattr(value, f"{field.name}_id", ""):
            yield f"{field.name}/{resource_id}"
