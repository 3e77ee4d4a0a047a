"""Which fields of messages are secret, by their option: those that are readable by COORDINATOR are write-only."""

from functools import cache
from typing import TypeVar

from boatyard.access.v1 import access_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

AnyMessage = TypeVar("AnyMessage", bound=Message)


def is_write_only(field: FieldDescriptor) -> bool:
    """True for a field that is in no response but those to coordinators."""
    reader: int = field.GetOptions().Extensions[access_pb2.readable_by]
    return reader == access_pb2.ROLE_COORDINATOR


def without_secrets(message: AnyMessage) -> AnyMessage:
    """Return a message without its secrets, of which the names stay: itself, where it can have none."""
    if not _secret_fields(message.DESCRIPTOR):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy)
    return copy


@cache
def _secret_fields(message: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Return the fields that are write-only, or have such fields inside."""
    return tuple(
        field
        for field in message.fields
        if is_write_only(field) or (field.message_type is not None and _secret_fields(field.message_type))
    )


def _clear(message: Message) -> None:
    for field in _secret_fields(message.DESCRIPTOR):
        value = getattr(message, field.name)
        if not is_write_only(field):
            for part in value if field.is_repeated else (value,) if message.HasField(field.name) else ():
                _clear(part)
        elif field.message_type is not None:  # a map, whose keys are names
            for name in list(value):
                value[name] = ""
        else:
            message.ClearField(field.name)
