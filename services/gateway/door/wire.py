"""Reads from the contract who may call an RPC, and from a request which resources it names."""

import re
from collections.abc import Container, Iterable, Iterator
from typing import Final

from boatyard.access.v1 import access_pb2
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from services.common.ids import is_id
from services.gateway.door.owners import PROJECT, NamedResource
from services.gateway.values.principal import Role
from services.gateway.wire.access import ROLES

_CREATE_REQUEST: Final = re.compile(r"Create(\w+)Request")
_ID_FIELD: Final = re.compile(r"(\w+)_ids?")


def required_roles(services: Iterable[str]) -> dict[str, Role]:
    """Return the role that each RPC of these services (full names) requires, by the RPC's path."""
    return {
        f"/{service.full_name}/{method.name}": ROLES[method.GetOptions().Extensions[access_pb2.required_role]]
        for service in map(Default().FindServiceByName, services)
        for method in service.methods
        if method.GetOptions().HasExtension(access_pb2.required_role)
    }


def named_in(message: Message, kinds: Container[str]) -> list[NamedResource]:
    """Return all resources of some kinds, and all projects, that a request names by well-formed ids.

    The RPC that serves the request refuses ids that are not well-formed.
    """
    made = _CREATE_REQUEST.match(message.DESCRIPTOR.name)
    own = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", made[1]).lower() if made else ""
    return list(_named_below(message, kinds, own, ""))


def coordinator_in(request: Message) -> str:
    """Return the coordinator that a request to one of its services says it comes from; empty if it says none."""
    holder = getattr(request, "holder", request)
    return str(getattr(holder, "coordinator_id", ""))


def kind_of(field: str, kinds: Container[str]) -> str | None:
    """Return the kind of resource (or project) that a field names, such as work_item for related_work_item_ids."""
    id_field = _ID_FIELD.fullmatch(field)
    if id_field is None:
        return None
    words = id_field[1].split("_")
    stems = ("_".join(words[first:]) for first in range(len(words)))
    return next((stem for stem in stems if stem == PROJECT or stem in kinds), None)


def _named_below(message: Message, kinds: Container[str], own: str, path: str) -> Iterator[NamedResource]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                continue
            for part in value if field.is_repeated else (value,):
                yield from _named_below(part, kinds, own, f"{path}{field.name}.")
        elif kind := kind_of(field.name, kinds):
            is_new = path + field.name == f"{own}.{own}_id"
            for resource_id in value if field.is_repeated else (value,):
                if is_id(resource_id):
                    yield NamedResource(kind, resource_id, is_new)
