"""Fields of the contract's messages: read from the command line, and shown to people and programs."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click
from boatyard.gateway.v1 import catalog_pb2, policy_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli import shapes
from services.cli.parsing import duration, read_text, text_or_file

Number = TypeVar("Number", int, float)
Reader = Callable[[Any], Any]
"""Makes a field's value from what was typed: a text, or the texts of an option that may be repeated."""

_NOWHERE = "none"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGTkmgt]?)(?:[iI]?[bB])?")


def field_of(message: type[Message] | Message, path: str) -> Any:  # noqa: ANN401 - of whichever implementation
    """Return the descriptor of the field, or of the oneof, that a path such as `agent.command.line` leads to."""
    *outer, last = path.split(".")
    descriptor: Any = message.DESCRIPTOR
    for name in outer:
        descriptor = descriptor.fields_by_name[name].message_type
    return descriptor.oneofs_by_name.get(last) or descriptor.fields_by_name[last]


def cases_of(field: Any) -> list[str]:  # noqa: ANN401 - of whichever implementation
    """Return the names of a oneof's cases; none for a field."""
    return [case.name for case in getattr(field, "fields", ())]


def choices(enum: EnumDescriptor) -> dict[str, int]:
    """Return an enum's values by their names on the command line: without prefix, in lower case."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {
        value.name.removeprefix(prefix).lower().replace("_", "-"): value.number
        for value in enum.values
        if value.number != 0
    }


def fill(
    message: Message, values: Mapping[str, Any], readers: Mapping[str, Reader] = MappingProxyType({})
) -> list[str]:
    """Put the values of options into a message, by paths with "__" for "."; return the paths that were given.

    A value is read by the reader for its path, or else according to the field's type. Raises click.UsageError.
    """
    paths = []
    for name, typed in values.items():
        if typed is None or typed == ():
            continue
        path = name.replace("__", ".")
        field = field_of(message, path)
        target = _target(message, path)
        if typed in cases_of(field):
            path = path.removesuffix(field.name) + typed
            _choose(target, field, typed).SetInParent()
        elif path in readers:
            _put(target, field, readers[path](typed))
        else:
            (_add if field.is_repeated else _set)(target, field, typed)
        paths.append(path)
    return paths


def _target(message: Any, path: str) -> Any:  # noqa: ANN401 - any message
    """Return the message that has the field of a path."""
    for name in path.split(".")[:-1]:
        oneof = message.DESCRIPTOR.fields_by_name[name].containing_oneof
        message = getattr(message, name) if oneof is None else _choose(message, oneof, name)
    return message


def _choose(message: Any, oneof: Any, case: str) -> Any:  # noqa: ANN401 - any message, of whichever implementation
    """Return a case of a oneof. Raises click.UsageError when another one is set."""
    if (chosen := message.WhichOneof(oneof.name)) not in {None, case}:
        raise click.UsageError(f"some of these options are for {oneof.name} {chosen}, others for {case}")
    return getattr(message, case)


def _put(target: Any, field: FieldDescriptor, value: Any) -> None:  # noqa: ANN401 - any message, and what its field takes
    if isinstance(value, Mapping):
        getattr(target, field.name).update(value)
    elif field.is_repeated:
        getattr(target, field.name).extend(value)
    elif isinstance(value, Message):
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)


def _add(target: Any, field: FieldDescriptor, typed: tuple[str, ...]) -> None:  # noqa: ANN401 - any message
    values = getattr(target, field.name)
    if field.message_type is None:
        values.extend(typed)
    elif field.message_type is catalog_pb2.Document.DESCRIPTOR:
        values.extend(catalog_pb2.Document(name=Path(file).name, content=read_text(file)) for file in typed)
    else:
        for pair in typed:
            name, equals, value = pair.partition("=")
            if not equals:
                raise click.UsageError(f"{pair!r} is not NAME=VALUE")
            values[name] = value


def _set(target: Any, field: FieldDescriptor, typed: Any) -> None:  # noqa: ANN401 - any message, text or a bool
    if field.type == FieldDescriptor.TYPE_BOOL:
        setattr(target, field.name, typed)
    elif field.name.endswith("_bytes"):
        setattr(target, field.name, _size(typed))
    elif field.message_type is policy_pb2.Checkpoints.DESCRIPTOR:
        stages = () if typed == _NOWHERE else map(str.strip, typed.split(","))
        getattr(target, field.name).CopyFrom(policy_pb2.Checkpoints(before=stages))
    elif field.message_type is Duration.DESCRIPTOR:
        getattr(target, field.name).CopyFrom(duration(_number(float, typed)))
    elif field.enum_type is not None:
        setattr(target, field.name, choices(field.enum_type)[typed])
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(target, field.name, text_or_file(typed))
    else:
        setattr(target, field.name, _number(float if field.type == FieldDescriptor.TYPE_DOUBLE else int, typed))


def _size(typed: str) -> int:
    """Read bytes, with or without a unit: 1500, 512K, 2G, 1.5GiB."""
    match = _SIZE.fullmatch(typed.strip())
    if match is None:
        raise click.UsageError(f"{typed!r} is not a size such as 512M or 2G")
    return int(float(match[1]) * (1 << 10 * " KMGT".index(match[2].upper() or " ")))


def _number(read: Callable[[str], Number], typed: str) -> Number:
    try:
        return read(typed)
    except ValueError:
        raise click.UsageError(f"{typed!r} is not a number") from None


def plain(message: Message) -> shapes.Shape:
    """Return a message as JSON with the contract's field names: unset is null, times are text, durations seconds."""
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
        names = {number: name.upper().replace("-", "_") for name, number in choices(field.enum_type).items()}
        value = names.get(value)
    return None if value == "" else value


def _part(value: Message) -> Any:  # noqa: ANN401 - JSON
    match value:
        case Timestamp():
            return shapes.time(value)
        case Duration():
            return value.ToNanoseconds() / 1e9
        case _:
            return plain(value)
