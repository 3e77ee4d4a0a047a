"""What callers may read of an answer, as the contract's fields say: asked in one place, after everything else."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from boatyard.gateway.v1 import access_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.gateway.values.principal import Role, current_principal

ROLES: Final = {
    access_pb2.ROLE_VIEWER: Role.VIEWER,
    access_pb2.ROLE_OPERATOR: Role.OPERATOR,
    access_pb2.ROLE_ADMIN: Role.ADMIN,
    access_pb2.ROLE_COORDINATOR: Role.COORDINATOR,
}
ROLE_NUMBERS: Final = {role: number for number, role in ROLES.items()}

Readable = TypeVar("Readable", bound=Message)

_URL: Final = "url"


def for_caller(answer: Any) -> Any:  # noqa: ANN401 - any message, or one that is written already
    """Return what the caller of the RPC being served may read of an answer. See `call.Screen`."""
    return readable(answer, current_principal().role) if isinstance(answer, Message) else answer


def readable(message: Readable, role: Role) -> Readable:
    """Return what a role may read of a message: itself, or a copy that lacks the rest."""
    if role is Role.COORDINATOR or not withheld_from(message.DESCRIPTOR, role):
        return message
    seen = type(message)()
    seen.CopyFrom(message)
    _clear(seen, role)
    return seen


@cache
def withheld_from(message: Descriptor, role: Role) -> Sequence[tuple[FieldDescriptor, bool]]:
    """Return the fields of a message that a role may not read (True), or that hold such fields (False)."""
    withheld = []
    for field in message.fields:
        reader = field.GetOptions().Extensions[access_pb2.readable_by]
        if reader and not role.may(ROLES[reader]):
            withheld.append((field, True))
        elif field.message_type is not None and withheld_from(field.message_type, role):
            withheld.append((field, False))
    return withheld


def _clear(message: Message, role: Role) -> None:
    for field, is_kept in withheld_from(message.DESCRIPTOR, role):
        value = getattr(message, field.name)
        if not is_kept:
            held = value if field.is_repeated else (value,) if message.HasField(field.name) else ()
            for part in held:
                _clear(part, role)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            for name in list(value):  # a map that is written to is not to be gone through meanwhile
                value[name] = ""
        elif field.name == _URL:
            parts = urlsplit(value)
            setattr(message, field.name, f"{parts.scheme}://{parts.netloc}" if value else "")
        else:
            message.ClearField(field.name)
