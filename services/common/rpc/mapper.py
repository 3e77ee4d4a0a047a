"""Converts dataclasses to messages of the contract and back: fields of the same name, by their types.

    PROJECT: Final = Mapper(Project, pb.Project)
    REPOSITORY: Final = Mapper(Repository, pb.Repository, by_hand={"has_token", "token"})

    message = REPOSITORY.to_proto(repository, has_token=bool(repository.token))

| the dataclass's field | the message's field |
|---|---|
| str, bytes, bool, int, float | the same type |
| bytes | string: lossy text, with the fields `raw_<name>` or `<name>_is_lossy` where the message has them |
| Path | string |
| datetime, in UTC | Timestamp |
| timedelta, or float as seconds | Duration |
| Enum | an enum with the same names, behind its prefix, and UNSPECIFIED |
| dataclass | message |
| tuple or frozenset | repeated; a set is written sorted |
| Mapping | map |
| one of several dataclasses, or None | a oneof of the same name, with a case of a message type of each one's name |
| … or None, or a type variable for it | a field that can be unset (UNSPECIFIED, and a Path's empty string, are unset) |
| Literal | nothing: it is the dataclass's own |

A field that is unset in a message gets the dataclass's default, or is an error where there is none.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.rpc.times import duration_to_proto, seconds_from_proto
from services.common.text import bytes_of, bytes_of_list, is_utf8, lossy, path_from_text, path_to_text, raw, raw_list

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = TypeVar("Value", bound="DataclassInstance")
Wire = TypeVar("Wire", bound=Message)
Convert = Callable[[Any], Any]

_SCALARS: Final[Mapping[Any, Collection[int]]] = {
    str: {FieldDescriptor.TYPE_STRING},
    bytes: {FieldDescriptor.TYPE_BYTES},
    bool: {FieldDescriptor.TYPE_BOOL},
    float: {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT},
    int: {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    },
}


@dataclass(frozen=True, slots=True)
class _Codec:
    """Writes a value of some type into a field of some type, and reads it from there."""

    write: Convert
    read: Convert


class Mapper(Generic[Value, Wire]):
    """The conversion between a dataclass and a message.

    Fields named in `by_hand`, of either of them, are never converted: they are given in a call, or stay unset. Raises
    TypeError for any other field that only one of them has, or whose types do not fit each other.
    """

    def __init__(self, value: type[Value], message: type[Wire], *, by_hand: Collection[str] = ()) -> None:
        self.value = value
        self.message = message
        self.by_hand = frozenset(by_hand)
        self._writers: list[tuple[str, str, Convert]] = []
        self._readers: list[tuple[str, Convert]] = []
        annotations = get_type_hints(value)
        known = dict(message.DESCRIPTOR.fields_by_name)
        own = {name for name, annotation in annotations.items() if get_origin(annotation) is Literal}
        names = {field.name for field in fields(value)} - self.by_hand - own
        for name in names:
            if name in known:
                self._add(known[name], annotations[name], known)
            elif name in message.DESCRIPTOR.oneofs_by_name:
                self._add_oneof(name, message.DESCRIPTOR.oneofs_by_name[name].fields, annotations[name])
        targets = {target for target, _, _ in self._writers}
        sources = {source for _, source, _ in self._writers}
        if unmatched := names - sources | set(known) - targets - self.by_hand:
            raise TypeError(f"{self._title}: only one of them has {', '.join(sorted(unmatched))}")
        if unknown := self.by_hand - known.keys() - annotations.keys():
            raise TypeError(f"{self._title}: none of them has {', '.join(sorted(unknown))}")

    def to_proto(self, value: Value, /, **given: object) -> Wire:
        """Write a value; the `given` fields of the message are not converted."""
        written: dict[str, Any] = {}
        for target, source, write in self._writers:
            content = getattr(value, source)
            if content is not None and target not in given:
                written[target] = write(content)
        return self.message(**written, **given)

    def from_proto(self, message: Wire, /, **given: object) -> Value:
        """Read a message; the `given` fields of the value are not converted."""
        found: dict[str, Any] = {}
        for name, read in self._readers:
            if name not in given and (content := read(message)) is not _UNSET:
                found[name] = content
        return self.value(**found, **given)

    @property
    def _title(self) -> str:
        return f"{self.value.__name__} and {self.message.DESCRIPTOR.full_name}"

    def _add_oneof(self, name: str, cases: Collection[Any], annotation: Any) -> None:  # noqa: ANN401 - a type
        kinds = {kind.__name__: kind for kind in get_args(annotation) if kind is not NoneType}
        if not cases or kinds.keys() != {case.message_type.name for case in cases}:
            raise TypeError(f"{self._title}: the cases of {name} are not {annotation}")
        readers = {}
        for case in cases:
            kind = kinds[case.message_type.name]
            mapper = Mapper(kind, GetMessageClass(case.message_type))
            self._writers.append((case.name, name, _case_writer(kind, mapper.to_proto)))
            readers[case.name] = mapper.from_proto

        def read(message: Any) -> Any:  # noqa: ANN401 - of any type
            case = message.WhichOneof(name)
            return None if case is None else readers[case](getattr(message, case))

        self._readers.append((name, read))

    def _add(self, field: Any, annotation: Any, siblings: Collection[str]) -> None:  # noqa: ANN401 - a type
        name = field.name
        kind, is_optional = _without_none(annotation)
        codec = _codec(kind, field)
        is_set = _presence(field, kind)
        if codec is None or (is_optional and is_set is None):
            raise TypeError(f"{self._title}: {name} does not fit {annotation}")
        self._writers.append((name, name, codec.write))
        read = _reader(name, codec.read, is_set, None if is_optional else _UNSET)
        if _is_text(kind, field) and (raw_name := f"raw_{name}") in siblings:
            write, join = (raw_list, bytes_of_list) if field.is_repeated else (raw, bytes_of)
            self._writers.append((raw_name, name, write))
            read = _joining_reader(name, raw_name, join)
        elif _is_text(kind, field) and (flag := f"{name}_is_lossy") in siblings:
            self._writers.append((flag, name, lambda data: not is_utf8(data)))
        self._readers.append((name, read))


_UNSET: Final = object()


def _case_writer(kind: type, write: Convert) -> Convert:
    """Return what writes a value of that type, and leaves the case unset for one of another type."""
    return lambda content: write(content) if type(content) is kind else None


def _without_none(annotation: Any) -> tuple[Any, bool]:  # noqa: ANN401 - a type
    """Return the type of what is there, and True when there may be nothing."""
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation, False
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType and not isinstance(kind, TypeVar)]
    return (kinds[0] if len(kinds) == 1 else annotation), True


def _is_text(kind: Any, field: FieldDescriptor) -> bool:  # noqa: ANN401 - a type
    """True for bytes, or a tuple of bytes, that are text in the message."""
    return field.type == FieldDescriptor.TYPE_STRING and bytes in {kind, *get_args(kind)}


def _presence(field: FieldDescriptor, kind: Any) -> Convert | None:  # noqa: ANN401 - a type
    """Return what tells of a message whether the field is set; None for a field that is never unset."""
    name = field.name
    if not field.is_repeated and (field.enum_type is not None or kind is Path):
        return lambda message: bool(getattr(message, name))
    return (lambda message: message.HasField(name)) if field.has_presence else None


def _reader(name: str, read: Convert, is_set: Convert | None, unset: object) -> Convert:
    if is_set is None:
        return lambda message: read(getattr(message, name))
    return lambda message: read(getattr(message, name)) if is_set(message) else unset


def _joining_reader(name: str, raw_name: str, join: Callable[[Any, Any], Any]) -> Convert:
    return lambda message: join(getattr(message, name), getattr(message, raw_name))


def _codec(kind: Any, field: FieldDescriptor) -> _Codec | None:  # noqa: ANN401 - a type
    """Return how to convert the whole of a field; None when the types do not fit."""
    if not field.is_repeated:
        return _item_codec(kind, field)
    origin, arguments = get_origin(kind), get_args(kind)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_codec(arguments, field.message_type) if origin is Mapping else None
    codec = _item_codec(arguments[0], field) if origin in {tuple, frozenset} else None
    if codec is None:
        return None
    write, read = codec.write, codec.read
    if origin is frozenset:
        return _Codec(lambda items: list(map(write, sorted(items))), lambda items: frozenset(map(read, items)))
    return _Codec(lambda items: list(map(write, items)), lambda items: tuple(map(read, items)))


def _map_codec(arguments: tuple[Any, ...], entry: Any) -> _Codec | None:  # noqa: ANN401 - types
    keys = _item_codec(arguments[0], entry.fields_by_name["key"])
    values = _item_codec(arguments[1], entry.fields_by_name["value"])
    if keys is None or values is None:
        return None
    write, read = values.write, values.read
    return _Codec(
        lambda items: {key: write(item) for key, item in items.items()},
        lambda items: {key: read(item) for key, item in items.items()},
    )


def _item_codec(kind: Any, field: FieldDescriptor) -> _Codec | None:  # noqa: ANN401 - a type
    """Return how to convert what a field holds, or each item of it; None when the types do not fit."""
    if field.enum_type is not None:
        return _enum_codec(kind, field.enum_type)
    if field.message_type is not None:
        return _message_codec(kind, field)
    if field.type in _SCALARS.get(kind, ()):
        return _Codec(_same, _same)
    if field.type == FieldDescriptor.TYPE_STRING and kind is bytes:
        return _Codec(lossy, str.encode)
    if field.type == FieldDescriptor.TYPE_STRING and kind is Path:
        return _Codec(path_to_text, path_from_text)
    return None


def _enum_codec(kind: Any, enum: EnumDescriptor) -> _Codec | None:  # noqa: ANN401 - a type
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    numbers = {value.name.removeprefix(prefix): value.number for value in enum.values if value.number}
    if not (isinstance(kind, type) and issubclass(kind, Enum)) or numbers.keys() != kind.__members__.keys():
        return None
    members = {number: kind[name] for name, number in numbers.items()}
    return _Codec({member: number for number, member in members.items()}.__getitem__, members.__getitem__)


def _message_codec(kind: Any, field: FieldDescriptor) -> _Codec | None:  # noqa: ANN401 - a type
    message = field.message_type
    if message is Timestamp.DESCRIPTOR:  # protobuf takes the values of the standard library
        return _Codec(_same, lambda time: time.ToDatetime(UTC)) if kind is datetime else None
    if message is Duration.DESCRIPTOR and kind is timedelta:
        return _Codec(_same, Duration.ToTimedelta)
    if message is Duration.DESCRIPTOR and kind is float:
        return _Codec(duration_to_proto, seconds_from_proto)
    value = get_origin(kind) or kind  # of a generic dataclass
    if message is None or not (isinstance(value, type) and is_dataclass(value)):
        return None
    mapper = Mapper(value, GetMessageClass(message))
    return _Codec(mapper.to_proto, mapper.from_proto)


def _same(content: Any) -> Any:  # noqa: ANN401 - of any type
    return content
