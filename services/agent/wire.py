"""Converts the settings of an agent between messages and values, and checks them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any, Final, TypeVar, get_args

from boatyard.agent.v1 import agent_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from services.agent.settings import AgentSettings, Engine, PromptDelivery, environment_complaint
from services.sandbox.host_patterns import HostPattern
from services.sandbox.spec import Network, Tier

_ENUMS: Final[Mapping[str, type[Tier | Network | PromptDelivery]]] = {
    "SandboxTier": Tier,
    "Network": Network,
    "PromptDelivery": PromptDelivery,
}
_ENGINES: Final = {engine().name: engine for engine in get_args(Engine)}
_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "max_turns": (1, 10_000),
    "max_tokens": (1, 128_000),
    "token_budget": (1, (1 << 63) - 1),
    "memory_bytes": (16 << 20, 1 << 50),
    "processes": (1, 1_000_000),
    "disk_bytes": (1 << 20, 1 << 50),
    "output_bytes": (1 << 10, 1 << 40),
    "cpu_seconds": (1, 100_000_000),
    "open_files": (1, 1_000_000),
    "file_size_bytes": (1, 1 << 50),
}
_TEXT_BYTES: Final = 64 << 10
_LINE_CHARACTERS: Final = 255
MAX_TIMEOUT: Final = timedelta(days=7)
_MAX_TOOLS: Final = 64
_MAX_HOSTS: Final = 256

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_TOOL: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")

Value = TypeVar("Value")
Violations = Iterator[tuple[str, str]]


def agent_to_proto(value: AgentSettings) -> pb.AgentSettings:
    """Write settings: one layer, or all of them merged."""
    message = pb.AgentSettings()
    _write(value, message)
    if value.engine is not None:
        case = getattr(message, value.engine.name)
        case.SetInParent()
        _write(value.engine, case)
    return message


def agent_from_proto(message: pb.AgentSettings) -> AgentSettings:
    """Read settings that have no violations; of others, what can be read."""
    engine = message.WhichOneof("engine")
    own = None if engine is None else _read(getattr(message, engine), _ENGINES[engine])
    return _read(message, AgentSettings, engine=own)


def violations(path: str, message: pb.AgentSettings) -> Violations:
    """Yield (field, rule) for all that is wrong; `path` is where the settings are, such as `worker.agent`."""
    yield from _field_violations(path, message)
    if (engine := message.WhichOneof("engine")) is not None:
        yield from _field_violations(f"{path}.{engine}", getattr(message, engine))
    yield from _text_violations(f"{path}.command.line", message.command.line)
    yield from _text_violations(f"{path}.system_prompt", message.system_prompt)
    for name in ("model", "image"):
        if len(getattr(message, name)) > _LINE_CHARACTERS or _CONTROL.search(getattr(message, name)):
            yield f"{path}.{name}", f"must be one line of at most {_LINE_CHARACTERS} characters"
    yield from _tool_violations(f"{path}.anthropic.ask_before", message.anthropic.ask_before)
    yield from _host_violations(f"{path}.allowed_hosts", message.allowed_hosts)
    yield from _environment_violations(f"{path}.environment", message.environment)


def _write(value: AgentSettings | Engine, message: Message) -> None:
    """Write the fields that are set."""
    for each in fields(value):
        descriptor = message.DESCRIPTOR.fields_by_name.get(each.name)
        content = getattr(value, each.name)
        if descriptor is None or content in (None, ()):
            continue
        if descriptor.enum_type is not None:
            setattr(
                message,
                each.name,
                descriptor.enum_type.values_by_name[_prefix(descriptor.enum_type) + content.name].number,
            )
        elif isinstance(content, timedelta):
            getattr(message, each.name).FromTimedelta(content)
        elif isinstance(content, Mapping):
            getattr(message, each.name).update(content)
        elif descriptor.is_repeated:
            getattr(message, each.name).extend(content)
        else:
            setattr(message, each.name, content)


def _read(message: Message, kind: type[Value], **more: Any) -> Value:  # noqa: ANN401 - any field's
    """Read the fields that are set."""
    values = {descriptor.name: _value(descriptor, content) for descriptor, content in message.ListFields()}
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known} | more)


def _value(descriptor: Any, content: Any) -> Any:  # noqa: ANN401 - a descriptor of any implementation, any content
    if descriptor.enum_type is not None:
        choice = descriptor.enum_type.values_by_number.get(content)
        name = "" if choice is None else choice.name.removeprefix(_prefix(descriptor.enum_type))
        return _ENUMS[descriptor.enum_type.name].__members__.get(name)
    if isinstance(content, Duration):
        return _span(content)
    if isinstance(content, Mapping):
        return dict(content)
    return tuple(content) if descriptor.is_repeated else content


def _prefix(enum: Any) -> str:  # noqa: ANN401 - a descriptor of any implementation
    return str(enum.values[0].name).removesuffix("UNSPECIFIED")


def _span(value: Duration) -> timedelta:
    """Read a time span, to the microsecond; one beyond all bounds is 0."""
    if 0 <= value.seconds <= MAX_TIMEOUT.total_seconds() and 0 <= value.nanos < 1_000_000_000:
        return timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    return timedelta()


def _field_violations(path: str, message: Message) -> Violations:
    """Yield what is wrong with numbers, time spans and enums, of which those that are set are checked."""
    for descriptor, content in message.ListFields():
        field = f"{path}.{descriptor.name}"
        if descriptor.name in _BOUNDS:
            least, most = _BOUNDS[descriptor.name]
            if not least <= content <= most:
                yield field, f"must be from {least} to {most}"
        elif isinstance(content, Duration):
            if not timedelta() < _span(content) <= MAX_TIMEOUT:
                yield field, f"must be more than 0, and at most {MAX_TIMEOUT.total_seconds():.0f} s"
        elif descriptor.enum_type is not None and content not in descriptor.enum_type.values_by_number:
            yield field, f"must be {' or '.join(_ENUMS[descriptor.enum_type.name].__members__)}"


def _text_violations(field: str, text: str) -> Violations:
    if len(text.encode()) > _TEXT_BYTES or "\0" in text:
        yield field, f"must be at most {_TEXT_BYTES >> 10} KiB, without NUL characters"


def _tool_violations(field: str, names: Any) -> Violations:  # noqa: ANN401 - a repeated field
    if len(names) > _MAX_TOOLS:
        yield field, f"must be at most {_MAX_TOOLS}"
    for name in names:
        if not _TOOL.fullmatch(name):
            yield field, f"{name[:64]!r} is not a tool's name: 1 to 64 letters, digits, '_' and '-'"


def _host_violations(field: str, patterns: Any) -> Violations:  # noqa: ANN401 - a repeated field
    if len(patterns) > _MAX_HOSTS:
        yield field, f"must be at most {_MAX_HOSTS}"
    for index, pattern in enumerate(patterns):
        try:
            HostPattern.parse(pattern)
        except ValueError as error:
            yield f"{field}[{index}]", str(error)


def _environment_violations(field: str, environment: Mapping[str, str]) -> Violations:
    if complaint := environment_complaint(environment):
        yield field, complaint
    for name, content in environment.items():
        if not _VARIABLE.fullmatch(name):
            yield (
                field,
                f"{name[:64]!r} is not a variable's name: letters, digits and '_', not beginning with a digit",
            )
        if "\0" in content:
            yield f"{field}[{name[:64]!r}]", "must not contain NUL characters"
