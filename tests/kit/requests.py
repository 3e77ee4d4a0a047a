"""Messages near the bounds of their rules: valid ones, ones that are one off, empty, huge, with NUL, NaN and the rest.

A message is made from a seed alone, so that a failure can be repeated.
"""

import math
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

from buf.validate import validate_pb2 as validate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

TEXTS = (
    *(
        "",
        "a",
        "a-b",
        "A",
        "-a",
        "a\n",
        "a\0",
        " ",
        "\t\n",
        "\u00e9",
        "\U0001f6a2",
        "\u3000",
        "a b",
        "a" * 63,
        "a" * 64,
    ),
    *(
        "0" * 39,
        "0" * 40,
        "f" * 64,
        "F" * 40,
        "HEAD",
        "@",
        "main",
        "main~1",
        "a..b",
        "a.lock",
        "refs/heads/x",
        "x/",
        "/",
    ),
    *("/a", "/a\0", "a/b", "a/../b", "./a", "a//b", "A=b", "A_B", "a<b>", "\x7f", "\u0085", "https://example.com/x"),
)
VALID = {
    "id": "a-b",
    "request_id": "A_b",
    "absolute_path": "/a",
    "relative_path": "a/b",
    "commit_id": "0" * 40,
    "reason": "A",
    "web_url": "https://a",
    "called_url": "https://a",
    "server_url": "https://a",
    "base_url": "https://a",
    "prefix": "https://a",
}
"""Texts that rules of these names allow, where `a` is not one."""
NUMBERS = (0, 1, -1, 2, 50, 51, 1 << 31, -(1 << 31) - 1, (1 << 63) - 1, -(1 << 63))
DOUBLES = (0.0, -0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 1e300)
_NANOS = 1_000_000_000
_MANY = 400
_DEEP = 4


def request(descriptor: Descriptor, seed: int) -> Any:
    """Return a message of a type; with some seeds most of it is valid, with others little is set."""
    random = Random(f"{descriptor.full_name}/{seed}")
    return _Maker(random, odds=random.choice((0.02, 0.1, 0.4)), fill=random.choice((0.3, 0.8, 1.0))).message(descriptor)


class _Maker:
    """`odds` is how often a value is any value of its type, and not one that its rules may allow."""

    def __init__(self, random: Random, odds: float, fill: float) -> None:
        self._random = random
        self._odds = odds
        self._fill = fill

    def message(self, descriptor: Descriptor, depth: int = 0) -> Any:
        message = GetMessageClass(descriptor)()
        chosen = {self._random.choice(oneof.fields).number for oneof in descriptor.oneofs if len(oneof.fields) > 1}
        for field in descriptor.fields:
            rules = field.GetOptions().Extensions[validate.field]
            oneof = field.containing_oneof
            is_one = oneof is not None and len(oneof.fields) > 1
            if is_one and field.number not in chosen:
                continue
            wanted = rules.required or (is_one and oneof.GetOptions().Extensions[validate.oneof].required)
            odds = 1 - self._odds / 4 if wanted else 0 if depth >= _DEEP else self._fill / (1 + depth)
            if self._random.random() < odds:
                self._set(message, field, rules, depth)
        return message

    def _set(self, message: Any, field: FieldDescriptor, rules: Any, depth: int) -> None:
        if field.name == "update_mask":
            (updated,) = (each for each in field.containing_type.fields if each.message_type and each is not field)
            message.update_mask.paths.extend(each.name for each in updated.message_type.fields)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            for _ in range(self._size(rules.map.max_pairs)):
                name = self._value(key, rules.map.keys)
                made = self._value(value, rules.map.values, depth)
                if value.message_type is None:
                    getattr(message, field.name)[name] = made
                else:
                    getattr(message, field.name)[name].CopyFrom(made)
        elif field.is_repeated:
            values = [
                self._value(field, rules.repeated.items, depth) for _ in range(self._size(rules.repeated.max_items))
            ]
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self._value(field, rules, depth))
        else:
            setattr(message, field.name, self._value(field, rules, depth))

    def _size(self, most: int) -> int:
        if 0 < most <= _MANY and self._random.random() < self._odds / 4:
            return most + self._random.choice((0, 1))
        return self._random.choice((0, 1, 1, 2))

    def _value(self, field: FieldDescriptor, rules: Any, depth: int = 0) -> Any:
        if field.message_type is not None:
            kind = field.message_type.full_name
            if kind in {"google.protobuf.Duration", "google.protobuf.Timestamp"}:
                return self._moment(Duration if kind.endswith("Duration") else Timestamp, rules)
            return self.message(field.message_type, depth + 1)
        values = _values(field, rules.SerializeToString())
        return self._random.choice(values[self._random.random() < self._odds])

    def _moment(self, kind: Any, rules: Any) -> Any:
        bounds = [bound for _, bound in getattr(rules, kind.__name__.lower()).ListFields()] or [kind(seconds=60)]
        bound = self._random.choice(bounds)
        place = bound.seconds * _NANOS + bound.nanos
        place += self._random.choice((0, 1, -1, _NANOS, -_NANOS) if self._random.random() < self._odds else (0, 1, -1))
        seconds, nanos = divmod(place, _NANOS)
        if kind is Duration and seconds < 0 and nanos:
            seconds, nanos = seconds + 1, nanos - _NANOS
        return kind(seconds=seconds, nanos=nanos)


@cache
def _values(field: FieldDescriptor, serialized: bytes) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return likely values of a field, and all kinds of values."""
    rules = validate.FieldRules.FromString(serialized)
    kind = rules.WhichOneof("type")
    given = {rule.name: bound for rule, bound in getattr(rules, kind).ListFields()} if kind else {}
    likely: list[Any]
    if field.enum_type is not None:
        likely = list(given.get("in", field.enum_type.values_by_number)) + [0] * (not rules.required)
        return likely, [*field.enum_type.values_by_number, 99, -1]
    if field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
        return _texts(given, is_bytes=field.type == FieldDescriptor.TYPE_BYTES)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return [False, True], [False, True]
    bounds = [bound for name, bound in given.items() if name in {"gt", "gte", "lt", "lte"}]
    bounds += given.get("in", [])
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return bounds or [0.5, 1.0], [*DOUBLES, *(b + d for b in bounds for d in (-0.1, 0.1))]
    bits = 31 if field.type == FieldDescriptor.TYPE_INT32 else 63
    near = [bound + offset for bound in bounds for offset in (-1, 0, 1)]
    fitting = [number for number in (*NUMBERS, *near) if -(1 << bits) <= number < 1 << bits]
    return bounds or [1, 2], fitting


def _texts(given: dict[str, Any], *, is_bytes: bool) -> tuple[Sequence[Any], Sequence[Any]]:
    texts = [*TEXTS, *given.get("in", []), given.get("prefix", ""), given.get("prefix", "") + "a"]
    sizes = [given[name] + offset for name in ("min_len", "max_len", "min_bytes", "max_bytes") if name in given
             for offset in (-1, 0, 1)]  # fmt: skip
    characters = ("a", "\u00e9", "\U0001f6a2")
    long = [
        each * (size // len(each.encode())) + "a" * (size % len(each.encode())) for size in sizes for each in characters
    ]
    long += ["\u00e9" * size for size in sizes if size < 1 << 12]
    likely = list(given.get("in", [])) or [text for name, text in VALID.items() if name in given] or ["a", "main"]
    if is_bytes:
        return [b"", b"a"], [text.encode() for text in (*texts, *long)] + [b"\xff"]
    return likely, [*texts, *long]
