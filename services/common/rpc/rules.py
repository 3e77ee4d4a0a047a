"""The rules of the contract, which stand in the protos as `buf.validate` options, evaluated for every request.

To add a rule, write the option at its field, and nothing else. Rules for text with a name of ours, such as that of an
id, are in boatyard/rules/v1/rules.proto. `rule_options` has all options that can be used: a service whose contract has
another one does not start. The interceptor evaluates the rules after authentication and permission.

A rule that compares fields of one message, or needs a setting, is a function in the `checks` of the service's
`Registration`: its violations are reported with all others. What needs a database is left to the servicers.

Fields without a rule of their own are still looked into. A Duration or Timestamp must be one that its type allows.
Of an update with an `update_mask`, only the id and what the mask names is checked.

Why not protovalidate: it brings 20 MiB of an evaluator for CEL, which we do not use. The tests compare with it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from buf.validate import validate_pb2 as validate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.common.errors import Invalid
from services.common.rpc.rule_options import WELL_FORMED, Rule, UnknownRuleError, first_of, listed, value_rules

Violation: TypeAlias = tuple[str, str]
"""The path of a field, such as `files[3].path` or `labels["x"]`, and what is wrong with it."""
Check: TypeAlias = Callable[[Any], Iterable[Violation]]
"""Finds what is wrong with a message as a whole; its paths begin in that message."""

_Step: TypeAlias = Callable[[Any, str, list[Violation]], None]
"""Adds what is wrong with a value that is at a path."""

_REQUIRED: Final = "is required"
_MASK: Final = "update_mask"


@dataclass(slots=True)
class _MessageType:
    """The compiled rules of a message type: of its fields by number, and of those that must not be absent."""

    steps: dict[int, tuple[str, _Step]] = field(default_factory=dict)
    absent: list[tuple[frozenset[int], Violation]] = field(default_factory=list)
    check: Check | None = None

    def walk(self, message: Message, prefix: str, found: list[Violation]) -> None:
        # Only fields that are set are looked at. What is wrong with an absent one was found out when it was compiled.
        fields = message.ListFields()
        for descriptor, value in fields:
            if (known := self.steps.get(descriptor.number)) is not None:
                name, step = known
                step(value, prefix + name, found)
        if self.absent:
            present = {descriptor.number for descriptor, _ in fields}
            found += [(prefix + path, text) for numbers, (path, text) in self.absent if numbers.isdisjoint(present)]
        if self.check is not None and (more := list(self.check(message))):
            said = {path for path, _ in found}  # of a field, the first complaint is enough
            found += [(prefix + path, text) for path, text in more if prefix + path not in said]


class Rules:
    """Evaluates the contract's rules, and `checks` by the full name of the message type that each is for."""

    def __init__(self, checks: Mapping[str, Check] | None = None) -> None:
        self._checks = dict(checks or {})
        self._types: dict[Descriptor, _MessageType | None] = {}

    def compile(self, services: Iterable[str]) -> None:
        """Compile the rules for all requests of some services, by their full names. Raises UnknownRuleError."""
        for name in services:
            try:
                service = Default().FindServiceByName(name)
            except KeyError:  # it is served without messages, as in tests
                continue
            for method in service.methods:
                self._type(method.input_type)

    def violations(self, message: Message) -> Sequence[Violation]:
        """Return everything that is wrong with a message. Raises UnknownRuleError."""
        found: list[Violation] = []
        if (compiled := self._type(cast("Descriptor", message.DESCRIPTOR))) is not None:
            compiled.walk(message, "", found)
        return named_by_mask(message, found) if found else found

    def enforce(self, message: object) -> None:
        """Raise Invalid with everything that is wrong with a message."""
        if isinstance(message, Message) and (found := self.violations(message)):
            raise Invalid(found)

    def _type(self, descriptor: Descriptor) -> _MessageType | None:
        """Return the compiled rules of a message type; None where neither it nor anything inside has one."""
        if descriptor not in self._types:
            has_rules = any(map(self._has_rules, _with_inner_types(descriptor)))
            compiled = self._types[descriptor] = _MessageType() if has_rules else None
            if compiled is not None:  # it is known by now, because a message may be inside of itself
                self._compile(descriptor, compiled)
        return self._types[descriptor]

    def _has_rules(self, descriptor: Descriptor) -> bool:
        return (
            descriptor.full_name in self._checks
            or descriptor.full_name in WELL_FORMED
            or _has_message_rules(descriptor)
            or any(each.GetOptions().HasExtension(validate.field) for each in descriptor.fields)
            or any(each.GetOptions().HasExtension(validate.oneof) for each in descriptor.oneofs)
        )

    def _compile(self, descriptor: Descriptor, compiled: _MessageType) -> None:
        if _has_message_rules(descriptor):
            raise UnknownRuleError(f"{descriptor.full_name}: rules of a message as a whole are functions: see Rules")
        compiled.check = self._checks.get(descriptor.full_name)
        for oneof in descriptor.oneofs:
            if oneof.GetOptions().Extensions[validate.oneof].required:
                numbers = frozenset(each.number for each in oneof.fields)
                text = f"{_REQUIRED}: {listed(each.name for each in oneof.fields)}"
                compiled.absent.append((numbers, (oneof.name, text)))
        for each in descriptor.fields:
            self._compile_field(each, each.GetOptions().Extensions[validate.field], compiled)

    def _compile_field(self, each: FieldDescriptor, rules: validate.FieldRules, compiled: _MessageType) -> None:
        if rules.ignore == validate.IGNORE_ALWAYS:
            return
        step = self._step(each, rules)
        if step is not None:
            compiled.steps[each.number] = (each.name, step)
        complaints: list[Violation] = []
        if rules.required:
            complaints = [(each.name, _REQUIRED)]
        elif step is not None and not each.has_presence and not rules.ignore:
            step({} if _is_map(each) else each.default_value, each.name, complaints)
        compiled.absent += [(frozenset({each.number}), complaint) for complaint in complaints]

    def _step(self, each: FieldDescriptor, rules: validate.FieldRules) -> _Step | None:
        for inner in (rules.repeated.items, rules.map.keys, rules.map.values):
            if inner.required or inner.ignore == validate.IGNORE_ALWAYS:
                raise UnknownRuleError(f"{each.full_name}: its values can only have rules of their type")
        if each.message_type is not None and _is_map(each):
            key, value = each.message_type.fields
            rule = first_of(value_rules(each, rules, "map"))
            return _map_step(rule, self._value(key, rules.map.keys), self._value(value, rules.map.values))
        if each.is_repeated:
            return _list_step(first_of(value_rules(each, rules, "repeated")), self._value(each, rules.repeated.items))
        return self._value(each, rules)

    def _value(self, each: FieldDescriptor, rules: validate.FieldRules) -> _Step | None:
        """Compile the rules of a field's value, or of one of its values."""
        rule = first_of(value_rules(each, rules))
        if each.message_type is None or each.message_type.full_name in WELL_FORMED:
            return None if rule is None else _value_step(rule, skips_zero=bool(rules.ignore))
        compiled = self._type(each.message_type)
        return None if compiled is None else _message_step(compiled)


def _value_step(rule: Rule, *, skips_zero: bool) -> _Step:
    def step(value: Any, path: str, found: list[Violation]) -> None:
        if (value or not skips_zero) and (complaint := rule(value)) is not None:
            found.append((path, complaint))

    return step


def _message_step(compiled: _MessageType) -> _Step:
    return lambda value, path, found: compiled.walk(value, f"{path}.", found)


def _list_step(rule: Rule | None, each: _Step | None) -> _Step | None:
    if rule is None and each is None:
        return None

    def step(values: Any, path: str, found: list[Violation]) -> None:
        if rule is not None and (complaint := rule(values)) is not None:
            found.append((path, complaint))
        if each is not None:
            for index, value in enumerate(values):
                each(value, f"{path}[{index}]", found)

    return step


def _map_step(rule: Rule | None, key_step: _Step | None, value_step: _Step | None) -> _Step | None:
    if rule is None and key_step is None and value_step is None:
        return None

    def step(values: Any, path: str, found: list[Violation]) -> None:
        if rule is not None and (complaint := rule(values)) is not None:
            found.append((path, complaint))
        for key, value in values.items():
            inner = f'{path}["{key}"]' if isinstance(key, str) else f"{path}[{key}]"
            if key_step is not None:
                key_step(key, inner, found)
            if value_step is not None:
                value_step(value, inner, found)

    return step


def _has_message_rules(descriptor: Descriptor) -> bool:
    # The generated module has another `message` beside this option's.
    return any(option.full_name == "buf.validate.message" for option, _ in descriptor.GetOptions().ListFields())


def _is_map(each: FieldDescriptor) -> bool:
    return each.message_type is not None and each.message_type.GetOptions().map_entry


def _with_inner_types(descriptor: Descriptor) -> Iterator[Descriptor]:
    """Yield a message type, and every type of a message that can be inside of it."""
    known, waiting = {descriptor}, [descriptor]
    while waiting:
        each = waiting.pop()
        yield each
        new = {inner.message_type for inner in each.fields if inner.message_type is not None} - known
        known |= new
        waiting += new


def named_by_mask(message: Any, found: Sequence[Violation]) -> Sequence[Violation]:
    """Leave out what is wrong with fields of an update that its mask does not name; the id is always checked."""
    mask = getattr(message, _MASK, None)
    if not isinstance(mask, FieldMask):
        return found
    (updated,) = (each.name for each in message.DESCRIPTOR.fields if each.message_type and each.name != _MASK)
    named = [f"{updated}.{path}" for path in (f"{updated}_id", *mask.paths)]
    return [
        (path, text)
        for path, text in found
        if not path.startswith(f"{updated}.")
        or path in named
        or path.startswith(tuple(f"{each}{mark}" for each in named for mark in ".["))
    ]
