"""The rules of the contract, which stand in the protos as `buf.validate` options, evaluated for every request.

To add a rule, write the option at its field, and nothing else. Rules for text with a name of ours, such as that of an
id, are in boatyard/rules/v1/rules.proto. `rule_options` has all options that can be used: a service whose contract has
another one does not start. The interceptor evaluates the rules after authentication and permission.

A rule that compares fields of one message, or needs a setting, is a function in the `checks` of the service's
`Registration`: its violations are reported with all others. What needs a database is left to the servicers.

Fields without a rule of their own are still looked into. A Duration or Timestamp must be one that its type allows.
Of an update with an `update_mask`, only the id and what the mask names is checked.

Why not protovalidate: it takes 16 MiB of memory for an evaluator of CEL, which is not used. The tests compare with it.
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

_Step: TypeAlias = Callable[[Any], str | Sequence[Violation] | None]
"""Returns what is wrong with a value, or with what is in it; then paths begin in the value, with a dot or a bracket.

So paths are only written of what is wrong, which most values are not.
"""

_REQUIRED: Final = "is required"
_MASK: Final = "update_mask"


@dataclass(slots=True)
class _Field:
    """The compiled rules of a field; `absent` is what is wrong when the field, or all of its oneof, is not set."""

    path: str
    step: _Step | None
    absent: Violation | None


@dataclass(slots=True)
class _MessageType:
    """The compiled rules of a message type: its fields by number, and how many violations it has when none is set."""

    fields: dict[int, _Field] = field(default_factory=dict)
    needed: int = 0
    check: Check | None = None

    def step(self, message: Message) -> Sequence[Violation]:
        found: list[Violation] = []
        needed = self.needed
        for descriptor, value in message.ListFields():  # those that are set; what is wrong with others is known
            if (known := self.fields.get(descriptor.number)) is not None:
                if known.absent is not None:
                    needed -= 1
                if known.step is not None and (wrong := known.step(value)):
                    found += _inside(known.path, wrong)
        if needed:
            found += self._absent(message)
        if self.check is not None and (more := [(f".{path}", text) for path, text in self.check(message)]):
            said = {path for path, _ in found}  # of a field, the first complaint is enough
            found += [violation for violation in more if violation[0] not in said]
        return found

    def _absent(self, message: Message) -> Iterable[Violation]:
        present = {descriptor.number for descriptor, _ in message.ListFields()}
        missing = dict.fromkeys(each.absent for number, each in self.fields.items() if number not in present)
        for number in present & self.fields.keys():
            missing.pop(self.fields[number].absent, None)  # the one of a oneof that is set
        return [violation for violation in missing if violation is not None]


class Rules:
    """Evaluates the contract's rules, and `checks` by the full name of the message type that each is for."""

    def __init__(self, checks: Mapping[str, Check] | None = None) -> None:
        self._checks = dict(checks or {})
        self._types: dict[Descriptor, _MessageType | None] = {}

    def compile(self, services: Iterable[str]) -> None:
        """Compile the rules for all requests of some services, by their full names.

        Raises UnknownRuleError, also when a check is for a message that none of them has.
        """
        for name in services:
            try:
                service = Default().FindServiceByName(name)
            except KeyError:  # it is served without messages, as in tests
                continue
            for method in service.methods:
                self._type(method.input_type)
        if unused := self._checks.keys() - {each.full_name for each in self._types}:
            raise UnknownRuleError(
                f"no request has the messages that these checks are for: {', '.join(sorted(unused))}"
            )

    def violations(self, message: Message) -> Sequence[Violation]:
        """Return everything that is wrong with a message. Raises UnknownRuleError."""
        compiled = self._type(cast("Descriptor", message.DESCRIPTOR))
        found = [(path[1:], text) for path, text in compiled.step(message)] if compiled is not None else []
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
        for each in descriptor.fields:
            rules = each.GetOptions().Extensions[validate.field]
            step = None if rules.ignore == validate.IGNORE_ALWAYS else self._step(each, rules)
            absent = _absent_complaint(each, rules, step)
            if step is not None or absent is not None:
                compiled.fields[each.number] = _Field(f".{each.name}", step, absent)
        compiled.needed = len({each.absent for each in compiled.fields.values()} - {None})

    def _step(self, each: FieldDescriptor, rules: validate.FieldRules) -> _Step | None:
        for inner in (rules.repeated.items, rules.map.keys, rules.map.values):
            if inner.required or inner.ignore:
                raise UnknownRuleError(f"{each.full_name}: its values can only have rules of their type")
        if each.message_type is not None and not each.is_repeated and rules.ignore:
            raise UnknownRuleError(f"{each.full_name}: the rules of a message are only evaluated where it is set")
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
        if each.message_type is not None and each.message_type.full_name not in WELL_FORMED:
            compiled = self._type(each.message_type)
            return None if compiled is None else compiled.step
        if rule is None or not (rules.ignore and each.has_presence):
            return rule
        return lambda value: rule(value) if value else None


def _absent_complaint(each: FieldDescriptor, rules: validate.FieldRules, step: _Step | None) -> Violation | None:
    """Return what is wrong when a field is not set."""
    path, oneof = f".{each.name}", each.containing_oneof
    if oneof is not None and oneof.GetOptions().Extensions[validate.oneof].required:
        return f".{oneof.name}", f"{_REQUIRED}: {listed(one.name for one in oneof.fields)}"
    if rules.required:
        return path, _REQUIRED
    if step is None or each.has_presence or rules.ignore:
        return None
    wrong = step({} if _is_map(each) else each.default_value)
    return _inside(path, wrong)[0] if wrong else None


def _inside(path: str, wrong: str | Sequence[Violation]) -> Sequence[Violation]:
    """Return violations whose paths begin in what `path` leads to, with paths that begin with it."""
    return [(path, wrong)] if isinstance(wrong, str) else [(path + inner, text) for inner, text in wrong]


def _list_step(rule: Rule | None, each: _Step | None) -> _Step | None:
    if each is None:
        return rule

    def step(values: Any) -> str | Sequence[Violation]:
        if rule is not None and (complaint := rule(values)):
            return complaint  # it may be far too long to be looked into
        found: list[Violation] = []
        for index, value in enumerate(values):
            if wrong := each(value):
                found += _inside(f"[{index}]", wrong)
        return found

    return step


def _map_step(rule: Rule | None, key_step: _Step | None, value_step: _Step | None) -> _Step | None:
    if key_step is None and value_step is None:
        return rule

    def step(values: Any) -> str | Sequence[Violation]:
        if rule is not None and (complaint := rule(values)):
            return complaint
        found: list[Violation] = []
        for key, value in values.items():
            wrong = (key_step is not None and key_step(key)) or (value_step is not None and value_step(value))
            if wrong:
                found += _inside(f'["{key}"]' if isinstance(key, str) else f"[{key}]", wrong)
        return found

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
