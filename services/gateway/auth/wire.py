"""Between the contract's messages and what callers are allowed. Checks everything that a request can get wrong."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from boatyard.gateway.v1 import access_pb2, auth_pb2
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from services.common.ids import is_id, new_id
from services.gateway.auth.model import FIRST_ADMINISTRATOR, Role, Token
from services.gateway.auth.owners import OWNERS, PROJECT, Named
from services.gateway.wire import Checks, timestamp

ROLES: Final = {
    access_pb2.ROLE_VIEWER: Role.VIEWER,
    access_pb2.ROLE_OPERATOR: Role.OPERATOR,
    access_pb2.ROLE_ADMIN: Role.ADMIN,
    access_pb2.ROLE_COORDINATOR: Role.COORDINATOR,
}
ROLE_NUMBERS: Final = {role: number for number, role in ROLES.items()}

_MAKING: Final = re.compile(r"(?:Create|Register)(\w+)Request")
_ID_FIELD: Final = re.compile(r"(\w+)_ids?")
_MAX_PROJECTS: Final = 100
_LONGEST: Final = timedelta(days=3653)


def required_roles(services: Iterable[str]) -> dict[str, Role]:
    """Return the role that each RPC of these services (full names) requires, by the RPC's path."""
    return {
        f"/{service.full_name}/{method.name}": ROLES[method.GetOptions().Extensions[access_pb2.required_role]]
        for service in map(Default().FindServiceByName, services)
        for method in service.methods
        if method.GetOptions().HasExtension(access_pb2.required_role)
    }


def named_in(message: Message) -> list[Named]:
    """Return all that a request names by well-formed ids; others are refused by whoever serves it."""
    made = _MAKING.match(message.DESCRIPTOR.name)
    own = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", made[1]).lower() if made else ""
    return list(_named_below(message, own, ""))


def coordinator_in(request: Message) -> str:
    """Return the coordinator that calls, as it says in a request to one of its services; empty where it does not."""
    holder = getattr(request, "holder", request)
    return str(getattr(holder, "coordinator_id", ""))


def kind_of(field: str) -> str | None:
    """Return the kind of thing that a field of this name names, such as work_item for related_work_item_ids."""
    found = _ID_FIELD.fullmatch(field)
    if found is None:
        return None
    words = found[1].split("_")
    stems = ("_".join(words[first:]) for first in range(len(words)))
    return next((stem for stem in stems if stem == PROJECT or stem in OWNERS), None)


def _named_below(message: Message, own: str, path: str) -> Iterator[Named]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                continue
            for part in value if field.is_repeated else (value,):
                yield from _named_below(part, own, f"{path}{field.name}.")
        elif kind := kind_of(field.name):
            is_new = path + field.name == f"{own}.{own}_id"
            for thing_id in value if field.is_repeated else (value,):
                if is_id(thing_id):
                    yield Named(kind, thing_id, is_new)


def token_of(check: Checks, request: auth_pb2.CreateTokenRequest, creator: str) -> Token:
    """Read a token that is to be made."""
    token_id, now = new_id("token"), datetime.now(UTC)
    name = check.line("name", request.name)
    if name.strip() == FIRST_ADMINISTRATOR:
        check.add("name", f"must not be `{FIRST_ADMINISTRATOR}`, as the first administrator is called in records")
    if len(request.project_ids) > _MAX_PROJECTS:
        check.add("project_ids", f"must be at most {_MAX_PROJECTS}")
    for index, project_id in enumerate(request.project_ids[:_MAX_PROJECTS]):
        check.required_id(f"project_ids[{index}]", project_id)
    role = check.choice("role", request.role, ROLES)
    if request.coordinator_id and role is not Role.COORDINATOR:
        check.add("coordinator_id", "is for a token of role COORDINATOR")
    expire_time = None
    if request.HasField("lifetime"):
        expire_time = now + check.duration("lifetime", request.lifetime, _LONGEST)
    return Token(
        token_id=token_id,
        name=name.strip() or token_id,
        role=role,
        projects=tuple(sorted(set(request.project_ids))),
        creator=creator,
        create_time=now,
        expire_time=expire_time,
        coordinator_id=check.optional_id("coordinator_id", request.coordinator_id),
    )


def token_message(token: Token) -> auth_pb2.Token:
    """Write a token."""
    return auth_pb2.Token(
        token_id=token.token_id,
        name=token.name,
        role=ROLE_NUMBERS[token.role],
        project_ids=token.projects,
        coordinator_id=token.coordinator_id,
        creator=token.creator,
        create_time=timestamp(token.create_time),
        expire_time=timestamp(token.expire_time) if token.expire_time else None,
        revoke_time=timestamp(token.revoke_time) if token.revoke_time else None,
        last_use_time=timestamp(token.last_use_time) if token.last_use_time else None,
    )
