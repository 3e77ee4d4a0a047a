"""Options as data: each names a field of a message, whose type says how the option's text is read."""

import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli import parsing
from services.cli.fields import cases_of, choices, fields_along
from services.cli.options import TEXT

_OF_MESSAGES: Mapping[str, click.ParamType[Any]] = {
    Duration.DESCRIPTOR.full_name: parsing.SECONDS,
    Timestamp.DESCRIPTOR.full_name: parsing.MOMENT,
}

_FIELD = re.compile(r'(?P<path>[a-z_.]+)(?:\["(?P<key>.*)"\])?', re.DOTALL)
"""A field's path, and the key where it is the entry of a map."""


@dataclass(frozen=True, slots=True)
class Flag:
    """An option, and the path of the field that it sets.

    Its text is read as `type` says, or else as the field's type does. With `stands_for` it takes no text, and stands
    for that one. It also sets the fields of `implies`, unless another option does. `variable` is an environment
    variable that has its value where it is not given. `is_fixed` if it cannot be changed afterwards.
    """

    option: str
    path: str
    help: str
    metavar: str | None = None
    type: click.ParamType[Any] | None = None
    stands_for: str | None = None
    implies: tuple[tuple[str, str], ...] = ()
    variable: str | None = None
    is_fixed: bool = False
    group: str = ""

    @property
    def name(self) -> str:
        """What click calls its value."""
        return self.option.removeprefix("--").replace("-", "_")


class GroupedOption(click.Option):
    """An option under a heading of its command's help."""

    def __init__(self, *args: Any, group: str = "", **settings: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help has its options under their headings, those without one last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", ""), []).append(record)
        rest = groups.pop("", [])
        for title, records in [*groups.items(), ("Options", rest)]:
            with formatter.section(title):
                formatter.write_dl(records, col_max=26)


def group(title: str, *flags: Flag) -> tuple[Flag, ...]:
    """Put flags under a heading of the help."""
    return tuple(replace(flag, group=title) for flag in flags)


def option_for(flags: Sequence[Flag], field: str) -> str | None:
    """Return the option that sets a field, such as `agent.model` or `agent.environment["A"]`; None if none does."""
    match = _FIELD.match(field)
    for flag in flags:
        if match is not None and f"{match['path']}.".startswith(f"{flag.path}."):
            return f"{flag.option} {match['key']}" if match["key"] else flag.option
    return None


def options_of(message: type[Message], flags: Sequence[Flag]) -> list[click.Parameter]:
    """Make the options whose values `fill` puts into such a message."""
    return [_option(message, flag) for flag in flags]


def clearable(message: type[Message], flag: Flag) -> Flag:
    """Return a flag for an update: of a floor, below which there is nothing, an empty text clears what was set."""
    field = fields_along(message, flag.path)[-1]
    if not flag.path.startswith("floor.") or field.type == FieldDescriptor.TYPE_BOOL:
        return flag
    return replace(flag, type=parsing.OrNothing(flag.type or _type_of(field)))


def is_emptied(flag: Flag, value: Any) -> bool:  # noqa: ANN401 - whatever it takes
    """True when a `clearable` flag was given an empty text. Raises click.UsageError for others beside it."""
    texts = value if isinstance(value, tuple) else (value,)
    if not isinstance(flag.type, parsing.OrNothing) or "" not in texts:
        return False
    if len(texts) > 1:
        raise click.UsageError(f"{flag.option} '' clears the setting: give it alone")
    return True


def fill(message: Message, flags: Sequence[Flag], values: Mapping[str, Any]) -> list[str]:
    """Put the values of options into a message; return the paths of the fields that were set.

    Raises click.UsageError for options that exclude each other, and for numbers that the message cannot hold.
    """
    given = [_with_case(message, flag, values[flag.name]) for flag in flags if values.get(flag.name) not in (None, ())]
    _check_alternatives(message, given)
    for flag in given:
        try:
            _put(message, flag.path, values[flag.name])
        except ValueError:
            raise click.UsageError(f"{flag.option} {values[flag.name]} is out of range") from None
    paths = [flag.path for flag in given]
    for path, value in (implied for flag in given if values[flag.name] for implied in flag.implies):
        if path not in paths:
            _put(message, path, value)
            paths.append(path)
    return paths


def _with_case(message: Message, flag: Flag, value: Any) -> Flag:  # noqa: ANN401 - whatever it takes
    """Return a flag that sets a oneof as one that sets the case with the name in `value`."""
    oneof = fields_along(message, flag.path)[-1]
    return replace(flag, path=flag.path.removesuffix(oneof.name) + value) if value in cases_of(oneof) else flag


def _option(message: type[Message], flag: Flag) -> click.Parameter:
    field = fields_along(message, flag.path)[-1]
    settings: dict[str, Any] = {"help": flag.help, "envvar": flag.variable, "group": flag.group, "default": None}
    declaration = flag.option
    if flag.stands_for is not None:
        settings |= {"flag_value": flag.stands_for}
    elif cases := cases_of(field):
        settings |= {"type": click.Choice(cases)}
    elif field.type == FieldDescriptor.TYPE_BOOL:
        declaration = f"{flag.option}/--no-{flag.option.removeprefix('--')}"
    else:
        settings |= {"metavar": flag.metavar, "multiple": field.is_repeated, "type": flag.type or _type_of(field)}
    return GroupedOption([declaration, flag.name], **settings)


def _type_of(field: Any) -> click.ParamType[Any]:  # noqa: ANN401 - a descriptor
    if field.enum_type is not None:
        return click.Choice(list(choices(field.enum_type)))
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXT
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return parsing.NUMBER
    if field.message_type is None:
        return parsing.SIZE if field.name.endswith("_bytes") else parsing.WHOLE_NUMBER
    return _OF_MESSAGES.get(field.message_type.full_name, parsing.PAIR)


def _check_alternatives(message: Message, given: Sequence[Flag]) -> None:
    """Raise click.UsageError where two options set the same field, or different fields of one oneof."""
    made: dict[str, tuple[str, Flag]] = {}
    for flag in given:
        for place, choice in _alternatives(message, flag):
            earlier_choice, earlier = made.setdefault(place, (choice, flag))
            if earlier_choice != choice:
                raise click.UsageError(
                    f"{earlier.option} and {flag.option} exclude each other: "
                    + _why(place.rpartition(".")[2], (earlier, earlier_choice), (flag, choice))
                )


def _why(oneof: str, *made: tuple[Flag, str]) -> str:
    """Return why two options exclude each other: one may set something inside of what the other does not choose."""
    if any(f".{choice}." in flag.path for flag, choice in made):
        return ", ".join(f"{flag.option} is for {oneof} {choice}" for flag, choice in made)
    return "give one of them"


def _alternatives(message: Message, flag: Flag) -> Iterator[tuple[str, str]]:
    """Yield where a flag makes a choice, and what it chooses."""
    yield flag.path, flag.option
    for field in fields_along(message, flag.path):
        if field.containing_oneof is not None:
            yield field.containing_oneof.full_name, field.name


def _put(message: Any, path: str, value: Any) -> None:  # noqa: ANN401 - any message, and what its field takes
    *outer, name = path.split(".")
    for each in outer:
        message = getattr(message, each)
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        container = getattr(message, name)
        if field.enum_type is not None:
            value = [choices(field.enum_type)[each] for each in value]
        container.update(value) if isinstance(container, MutableMapping) else container.extend(value)
    elif field.message_type is not None:
        part = getattr(message, name)
        part.SetInParent() if isinstance(value, str) else part.CopyFrom(value)  # a case that was chosen by its name
    else:
        setattr(message, name, choices(field.enum_type)[value] if field.enum_type is not None else value)
