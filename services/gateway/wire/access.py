"""What callers may read of a response, by the options of its fields: applied in one place, after everything else."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from boatyard.access.v1 import access_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.common.rpc.secrecy import is_write_only
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


def for_caller(response: Any) -> Any:  # noqa: ANN401 - any message, or a serialized one
    """Return what the caller of the RPC being served may read of a response. See `call.Screen`."""
    return readable(response, current_principal().role) if isinstance(response, Message) else response


def readable(message: Readable, role: Role) -> Readable:
    """Return what a role may read of a message: the message itself, or a copy without the rest."""
    if role is Role.COORDINATOR or not _holds_withheld(message, role):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy, role)
    return copy


def _holds_withheld(message: Message, role: Role) -> bool:
    """True when something in a message is not for a role: most messages have nothing that would have to be cleared."""
    for field, is_withheld in withheld_from(message.DESCRIPTOR, role):
        value = getattr(message, field.name)
        if is_withheld and (any(value.values()) if isinstance(value, Mapping) else value):
            return True
        if not is_withheld:
            parts = value if field.is_repeated else (value,) if message.HasField(field.name) else ()
            if any(_holds_withheld(part, role) for part in parts):
                return True
    return False


@cache
def withheld_from(message: Descriptor, role: Role) -> Sequence[tuple[FieldDescriptor, bool]]:
    """Return the fields of a message that a role may not read (True), or that contain such fields (False)."""
    withheld = []
    for field in message.fields:
        reader = field.GetOptions().Extensions[access_pb2.readable_by]
        if reader and (is_write_only(field) or not role.may(ROLES[reader])):
            withheld.append((field, True))
        elif field.message_type is not None and withheld_from(field.message_type, role):
            withheld.append((field, False))
    return withheld


def _clear(message: Message, role: Role) -> None:
    for field, is_withheld in withheld_from(message.DESCRIPTOR, role):
        value = getattr(message, field.name)
        if not is_withheld:
            parts = value if field.is_repeated else (value,) if message.HasField(field.name) else ()
            for part in parts:
                _clear(part, role)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            for name in list(value):  # a copy of its keys: a map must not change while it is iterated
                value[name] = ""
        elif field.name == _URL:
            url = urlsplit(value)
            setattr(message, field.name, f"{url.scheme}://{url.netloc}" if value else "")
        else:
            message.ClearField(field.name)
