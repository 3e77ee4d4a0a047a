"""Fields of the contract's messages, as people and programs see them."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli import shapes
from services.common.rpc.enums import short_names


def fields_along(message: type[Message] | Message, path: str) -> list[Any]:
    """Return the descriptors of the fields that a path such as `agent.model` leads through; the last may be a oneof."""
    found: list[Any] = []
    for name in path.split("."):
        inside: Any = found[-1].message_type if found else message.DESCRIPTOR
        found.append(inside.fields_by_name.get(name) or inside.oneofs_by_name[name])
    return found


def cases_of(field: Any) -> list[str]:  # noqa: ANN401 - a descriptor
    """Return the names of a oneof's cases; a field has none."""
    return [case.name for case in getattr(field, "fields", ())]


def choices(enum: EnumDescriptor) -> dict[str, int]:
    """Return an enum's values by their names on the command line: without prefix, in lower case."""
    return {name.lower().replace("_", "-"): number for number, name in short_names(enum).items()}


def largest_field(message: Message) -> str:
    """Return the path of the field that has most of a message, such as `spec.files`: a list's or a map's as a whole."""
    field, value = max(message.ListFields(), key=lambda each: _bytes_of(message, each[0]))
    if field.is_repeated or not isinstance(value, Message):
        return str(field.name)
    return f"{field.name}.{largest_field(value)}"


def _bytes_of(message: Message, field: FieldDescriptor) -> int:
    alone = type(message)()
    alone.CopyFrom(message)
    for other, _ in message.ListFields():
        if other.name != field.name:
            alone.ClearField(other.name)
    return alone.ByteSize()


def plain(message: Message) -> shapes.Shape:
    """Return a message as JSON with the contract's field names: unset is null, times are text, durations seconds.

    A text that is set and empty is "", as one that hides another layer's is.
    """
    return {field.name: value_of(message, field) for field in message.DESCRIPTOR.fields}


def value_of(message: Message, field: Any) -> Any:  # noqa: ANN401 - JSON, of a FieldDescriptor
    """Return one field of a message as JSON."""
    value = getattr(message, field.name)
    if field.is_repeated:
        if isinstance(value, Mapping):
            return dict(value)
        return [plain(each) if isinstance(each, Message) else each for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    if isinstance(value, Message):
        return _part(value)
    if field.enum_type is not None:
        value = short_names(field.enum_type).get(value)
    return None if value == "" and not field.has_presence else value


def _part(value: Message) -> Any:  # noqa: ANN401 - JSON
    match value:
        case Timestamp():
            return shapes.time(value)
        case Duration():
            return value.ToNanoseconds() / 1e9
        case _:
            return plain(value)
