"""Rules of single values, compiled from the `buf.validate` options of their fields, and what callers are told.

All options that are evaluated are here. A pattern means what it means to RE2, which other evaluators use: one that
Python would read differently is refused.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from buf.validate import validate_pb2 as validate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.errors import StartError
from services.common.rpc.enums import short_names

Rule: TypeAlias = Callable[[Any], str | None]
"""Returns what is wrong with a value, None when nothing is."""

_CASES: Final = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_ENUM: "enum",
}
"""Which case of FieldRules is for which type of field."""

_RANGE: Final = {"gt", "gte", "lt", "lte"}
_BYTES: Final = "bytes"
_SIZES: Final = {"PiB": 50, "TiB": 40, "GiB": 30, "MiB": 20, "KiB": 10}
_INNER: Final = {"items", "keys", "values"}
_EXPRESSION: Final = re.compile(r"(!?)this\.matches\(r'([^']+)'\)")
_AMBIGUOUS: Final = re.compile(r"\\[^\Wx]|\(\?|\{,|\[\[:|\[[^\]]*\$")
_NANOS: Final = 1_000_000_000
_LONGEST_DURATION: Final = 315_576_000_000 * _NANOS
_FIRST_SECOND: Final = -62_135_596_800  # of the year 1
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999


class UnknownRuleError(StartError):
    """The contract has an option that is not evaluated here, or that does not fit its field."""


def value_rules(each: FieldDescriptor, rules: validate.FieldRules, collection: str | None = None) -> Iterator[Rule]:
    """Yield the rules of one value of a field; with `collection` (repeated, map) those of its list or map as a whole.

    Raises UnknownRuleError.
    """
    case, expected = rules.WhichOneof("type"), collection or _case_of(each)
    others = {rule.name for rule, _ in rules.ListFields()} - {"required", "ignore", case}
    if others or case not in {None, expected}:
        raise UnknownRuleError(f"{each.full_name}: {others or case} is no rule for it, or is not evaluated")
    if expected in _WELL_FORMED_RULES:
        yield _WELL_FORMED_RULES[expected]
    if case is not None:
        yield from _case_rules(each, getattr(rules, case))


def first_of(rules: Iterable[Rule]) -> Rule | None:
    """Return one rule that says what the first broken one of them says; None when there are none."""
    ordered = tuple(rules)
    if len(ordered) <= 1:
        return ordered[0] if ordered else None

    def rule(value: Any) -> str | None:
        for each in ordered:
            if (complaint := each(value)) is not None:
                return complaint
        return None

    return rule


def listed(words: Iterable[str]) -> str:
    """Return words as a choice: "a, b or c"."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _case_of(each: FieldDescriptor) -> str:
    """Return which case of FieldRules is for one value of a field; empty where none is."""
    message = each.message_type
    return _CASES.get(each.type, "") if message is None else WELL_FORMED.get(message.full_name, "")


def _case_rules(each: FieldDescriptor, rules: Message) -> Iterator[Rule]:
    given = {rule.name: bound for rule, bound in rules.ListFields() if not rule.is_extension}
    if isinstance(rules, validate.EnumRules):
        yield _enum_rule(each, given)
        return
    if bounds := {name: given.pop(name) for name in _RANGE & given.keys()}:
        yield _range_rule(bounds, unit=_BYTES if each.name.endswith(f"_{_BYTES}") else "")
    for name, bound in given.items():
        if name in _INNER:
            continue
        if (make := _RULES.get(f"{rules.DESCRIPTOR.name}.{name}", _RULES.get(name))) is None:
            raise UnknownRuleError(f"{each.full_name}: the rule {name!r} is not evaluated")
        yield make(bound)
    for rule, bound in rules.ListFields():
        if rule.is_extension:
            yield _named_rule(rule, bound)


def _most_rule(most: int, unit: str) -> Rule:
    text = f"must be at most {_written_size(most, unit)}"
    return lambda value: text if len(value) > most else None


def _least_rule(least: int, unit: str, size: Callable[[Any], int] = len) -> Rule:
    text = "is required" if least == 1 else f"must be at least {_written_size(least, unit)}"
    return lambda value: text if size(value) < least else None


def _most_bytes_rule(most: int) -> Rule:
    text = f"must be at most {_written_size(most, _BYTES)}"
    fits_anyway = most // 4  # in UTF-8 a character has four bytes or fewer
    return lambda value: text if len(value) > fits_anyway and len(value.encode()) > most else None


def _bytes(value: str) -> int:
    return len(value.encode())


def _choice_rule(choices: Sequence[Any]) -> Rule:
    text = f"must be {listed(map(str, choices))}"
    return lambda value: None if value in choices else text


def _prefix_rule(prefix: str) -> Rule:
    return lambda value: None if value.startswith(prefix) else f"must begin with {prefix!r}"


def _unique_rule(is_on: bool) -> Rule:
    return lambda values: "must not have anything twice" if is_on and len(set(values)) < len(values) else None


def _pattern_rule(pattern: str, *, negated: bool = False, text: str | None = None) -> Rule:
    if _AMBIGUOUS.search(pattern):
        raise UnknownRuleError(f"the pattern {pattern!r} does not mean the same to every evaluator")
    # `$` is the end, and not also before a last line break, as in Python.
    search = re.compile(re.sub(r"(?<!\\)\$", r"\\Z", pattern)).search
    complaint = text or f"must {'not ' if negated else ''}match {pattern}"
    return lambda value: complaint if (search(value) is None) is not negated else None


def _named_rule(extension: FieldDescriptor, is_on: object) -> Rule:
    """Return the rule that has a name: an extension, whose pattern stands as CEL for other evaluators."""
    expressions = extension.GetOptions().Extensions[validate.predefined].cel
    known = _EXPRESSION.fullmatch(expressions[0].expression) if len(expressions) == 1 else None
    if known is None or is_on is not True:
        raise UnknownRuleError(f"{extension.full_name} must be true, and its expression `this.matches(r'…')`")
    return _pattern_rule(known[2], negated=bool(known[1]), text=expressions[0].message)


def _enum_rule(each: FieldDescriptor, given: dict[str, Any]) -> Rule:
    enum = each.enum_type
    if (
        enum is None
        or given.keys() - {"defined_only", "in", "not_in"}
        or not (given.get("defined_only") or "in" in given)
    ):
        raise UnknownRuleError(
            f"{each.full_name}: an enum's rules are `in`, or `defined_only` with `not_in` or without"
        )
    allowed = frozenset(given.get("in", enum.values_by_number)) - set(given.get("not_in", ()))
    names = short_names(enum)
    text = f"must be {listed(names[number] for number in sorted(allowed) if number)}"
    return lambda value: None if value in allowed else text


def _range_rule(bounds: dict[str, Any], unit: str) -> Rule:
    """Return the rule for a number (of bytes, if that is its unit), a Duration or a Timestamp; NaN is in no range."""
    low, high = bounds.get("gte", bounds.get("gt")), bounds.get("lte", bounds.get("lt"))
    order = _place if isinstance(high if low is None else low, Duration | Timestamp) else _itself
    least, most = -math.inf if low is None else order(low), math.inf if high is None else order(high)
    if least > most:
        raise UnknownRuleError(f"a range must not end before it begins: {bounds}")
    above, below = operator.gt if "gt" in bounds else operator.ge, operator.lt if "lt" in bounds else operator.le
    text = _range_text(bounds, unit)

    def rule(value: Any) -> str | None:
        place = order(value)
        return None if above(place, least) and below(place, most) else text

    return rule


def _range_text(bounds: dict[str, Any], unit: str) -> str:
    written = {name: _written_size(bound, unit) if unit else _written(bound) for name, bound in bounds.items()}
    if bounds.keys() == {"gte", "lte"}:
        return f"must be from {written['gte']} to {written['lte']}"
    if bounds.keys() == {"gte"} and bounds["gte"] == 0:
        return "must not be negative"
    words = {"gt": "more than", "gte": "at least", "lt": "less than", "lte": "at most"}
    return f"must be {', and '.join(f'{words[name]} {written[name]}' for name in words if name in written)}"


def _place(value: Duration | Timestamp) -> int:
    return value.seconds * _NANOS + value.nanos


def _itself(value: float) -> float:
    return value


def _written(bound: Any) -> str:
    """Write a bound for people: a number, a time, or a time span in the largest unit that it is a multiple of."""
    if isinstance(bound, Timestamp):
        return bound.ToJsonString()
    if not isinstance(bound, Duration):
        return str(bound) if isinstance(bound, int) else f"{bound:.15g}"
    for seconds, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if bound.seconds > seconds and not bound.nanos and bound.seconds % seconds == 0:
            return f"{bound.seconds // seconds} {unit}"
    return f"{_place(bound) / _NANOS:.15g} s"


def _written_size(size: int, unit: str) -> str:
    for name, bits in _SIZES.items():
        if unit == _BYTES and size and size % (1 << bits) == 0:
            return f"{size >> bits} {name}"
    return f"{size} {unit}"


def _duration_rule(value: Duration) -> str | None:
    place = _place(value)
    is_valid = abs(place) <= _LONGEST_DURATION and abs(value.nanos) < _NANOS and value.seconds * value.nanos >= 0
    return None if is_valid else "must be a time span of at most 10,000 years, with nanos of the same sign"


def _timestamp_rule(value: Timestamp) -> str | None:
    is_valid = _FIRST_SECOND <= value.seconds <= _LAST_SECOND and 0 <= value.nanos < _NANOS
    return None if is_valid else "must be a time from the year 1 to 9999"


WELL_FORMED: Final = {"google.protobuf.Duration": "duration", "google.protobuf.Timestamp": "timestamp"}
"""Types of messages that are values, by full name, with their case of FieldRules."""
_WELL_FORMED_RULES: Final[dict[str, Rule]] = {"duration": _duration_rule, "timestamp": _timestamp_rule}

_RULES: Final[dict[str, Callable[[Any], Rule]]] = {
    "BytesRules.min_len": lambda least: _least_rule(least, _BYTES),
    "BytesRules.max_len": lambda most: _most_rule(most, _BYTES),
    "min_len": lambda least: _least_rule(least, "characters"),
    "max_len": lambda most: _most_rule(most, "characters"),
    "min_bytes": lambda least: _least_rule(least, _BYTES, _bytes),
    "max_bytes": _most_bytes_rule,
    "min_items": lambda least: _least_rule(least, "entries"),
    "max_items": lambda most: _most_rule(most, "entries"),
    "min_pairs": lambda least: _least_rule(least, "entries"),
    "max_pairs": lambda most: _most_rule(most, "entries"),
    "unique": _unique_rule,
    "pattern": _pattern_rule,
    "prefix": _prefix_rule,
    "in": _choice_rule,
}
"""Makes a rule from an option, by its name; with its message's name before it where names mean different things."""
