"""Options as data: the message field that an option names says how its text is read."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.cli import options
from services.cli.fields import Reader, cases_of, choices, field_of
from services.cli.parsing import input_files, labels, moment, text_or_file, timestamp

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Flag:
    """An option, and the field that it sets; `is_fixed` for one that cannot be changed afterwards.

    `type` is what click checks, and `read` reads the text, where the field's type does not determine it. With
    `flag_value` the option takes no text, and stands for that one.
    """

    option: str
    path: str
    help: str
    metavar: str | None = None
    is_fixed: bool = False
    type: click.ParamType[Any] | None = None
    read: Reader | None = None
    flag_value: str | None = None


LITERALLY = str
"""Reads a text as it was typed, even one that begins with @."""
_SECONDS = click.FloatRange(min=0, min_open=True)

JOB_FLAGS = (
    Flag(
        "--ref",
        "revision",
        "The branch, tag or commit to start from (default: the remote's branch).",
        "REF",
        read=LITERALLY,
    ),
    Flag(
        "--from-snapshot",
        "snapshot_id",
        "Start from what another job left (see `boatyard snapshots`), in its repository.",
        "ID",
        read=LITERALLY,
    ),
    Flag(
        "--engine",
        "agent.engine",
        "What drives the agent (default: command).",
    ),
    Flag(
        "--command",
        "agent.command.line",
        "The agent: a line for /bin/sh, with the prompt on its standard input.",
        "LINE",
        read=LITERALLY,
    ),
    Flag(
        "--model",
        "agent.model",
        "The model, as its provider names it, for engine anthropic (default: the gateway's ANTHROPIC_MODEL).",
        "NAME",
        read=LITERALLY,
    ),
    Flag(
        "--max-turns",
        "agent.max_turns",
        "How many answers the model may give (default: 50).",
        "N",
        type=click.IntRange(min=1),
    ),
    Flag(
        "--verify",
        "policy.verify_command",
        "A line for /bin/sh that checks the result; nothing is pushed unless it exits with 0.",
        "LINE",
        read=LITERALLY,
    ),
    Flag("--kind", "kind", "The kind of the job; see `boatyard kinds` (default: task).", "NAME", read=LITERALLY),
    Flag(
        "--file",
        "files",
        "A file to work on; the agent finds it at .boatyard/input/NAME. May be repeated.",
        "NAME=PATH",
        read=input_files,
    ),
    Flag(
        "--data",
        "data",
        "A JSON object to work on; the agent finds it in the file named by $BOATYARD_INPUT.",
        "JSON|@FILE",
        type=options.TEXT,
        read=text_or_file,
    ),
    Flag("--label", "labels", "A label of the job; may be repeated.", "KEY=VALUE", read=labels),
    Flag("--delay", "delay", "Start in S seconds at the earliest.", "S", type=_SECONDS),
    Flag(
        "--not-before",
        "not_before_time",
        "Start at this time at the earliest, such as 2030-01-31T08:00+01:00.",
        "TIME",
        read=lambda typed: timestamp(moment("--not-before", typed)),
    ),
    Flag("--branch", "branch", "The branch of the result (default: boatyard/<job id>).", "NAME", read=LITERALLY),
    Flag("--no-push", "policy.publish", "Keep the result on this machine instead of pushing it.", flag_value="none"),
    Flag("--timeout", "agent.timeout", "Seconds that the agent may take (default: 3600).", "S", type=_SECONDS),
    Flag(
        "--sandbox",
        "agent.sandbox_tier",
        "How strongly the agent is isolated; none gives it all your rights (default: bubblewrap).",
    ),
)
"""The settings of a single job, for `boatyard run`."""


LIMIT_FLAGS = (
    Flag("--memory", "agent.memory_bytes", "Memory that the agent's processes may use together, such as 2G.", "SIZE"),
    Flag("--processes", "agent.processes", "Processes and threads that the agent may have at once.", "N"),
    Flag("--disk", "agent.disk_bytes", "How much the agent's workspace may grow, such as 5G.", "SIZE"),
    Flag("--output", "agent.output_bytes", "How much the agent may write to its output, such as 100M.", "SIZE"),
    Flag("--cpu", "agent.cpu_seconds", "Seconds of CPU time that the agent's processes may use together.", "S"),
    Flag(
        "--allow-host",
        "agent.allowed_hosts",
        "A host that the agent may reach; may be repeated.",
        "HOST",
    ),
    Flag(
        "--ask-before",
        "agent.anthropic.ask_before",
        "A tool that a model needs permission for; may be repeated.",
        "TOOL",
    ),
    Flag("--image", "agent.image", "The image of the agent's container, with --sandbox container.", "NAME"),
    Flag("--terminal", "agent.command.terminal", "Give a command a terminal, for `boatyard attach`."),
)
"""The limits of an agent, and what it has to ask for."""

CHECKPOINT_FLAGS = (
    Flag(
        "--approve-before",
        "policy.checkpoints",
        "The stages before which a person is asked, out of base, start, verify, push and end; or none.",
        "STAGE,…",
    ),
    Flag(
        "--answer-within", "policy.checkpoint_timeout", "Seconds after which no answer means no (default: a day).", "S"
    ),
    Flag("--max-extra-rounds", "policy.max_extra_rounds", "How often changes may be requested (default: 5).", "N"),
    Flag("--agent-may-ask", "policy.agent_may_ask", "Let the agent ask a person, through the file $BOATYARD_ASK_FILE."),
)
"""Where a job waits for a person."""

RETRY_FLAGS = (
    Flag("--max-attempts", "policy.max_attempts", "How often the job is tried at most.", "N"),
    Flag(
        "--retry-on",
        "policy.retry_on",
        "A failure reason after which the job is tried again, such as AGENT_FAILED; may be repeated.",
        "REASON",
    ),
    Flag("--retry-from", "policy.retry_from", "What the next attempt starts from."),
)
"""How often a job is tried, and when."""

RUN_FLAGS = (*JOB_FLAGS, *LIMIT_FLAGS, *RETRY_FLAGS, *CHECKPOINT_FLAGS)
"""All settings of a job without a worker; with a worker they come from the catalogue."""

AGENT_FLAGS = (
    Flag("--engine", "agent.engine", "What drives the agent; given alone, its own settings begin anew."),
    Flag(
        "--command",
        "agent.command.line",
        "The agent: a line for /bin/sh, with the prompt on its standard input.",
        "LINE",
    ),
    Flag("--system-prompt", "agent.system_prompt", "A text that the agent gets before every prompt.", "TEXT|@FILE"),
    Flag("--model", "agent.model", "The model, as its provider names it, for engine anthropic.", "NAME"),
    Flag("--max-turns", "agent.max_turns", "How many answers the model may give.", "N"),
    Flag("--max-tokens", "agent.anthropic.max_tokens", "How many tokens one answer of the model may have.", "N"),
    Flag("--env", "agent.environment", "A variable of the agent's environment; may be repeated.", "NAME=VALUE"),
    Flag("--timeout", "agent.timeout", "Seconds that the agent may take.", "S"),
    Flag("--idle-timeout", "agent.idle_timeout", "Seconds that the agent may go without writing anything.", "S"),
    Flag("--sandbox", "agent.sandbox_tier", "How strongly the agent is isolated."),
    Flag("--network", "agent.network", "What the agent may reach on the network."),
    *LIMIT_FLAGS,
    Flag(
        "--verify",
        "policy.verify_command",
        "A line for /bin/sh that checks the result; nothing is pushed unless it exits with 0.",
        "LINE",
    ),
    Flag("--verify-timeout", "policy.verify_timeout", "Seconds that the check may take.", "S"),
    Flag("--publish", "policy.publish", "What happens to the result."),
    *RETRY_FLAGS,
    Flag("--retention", "policy.retention", "What happens to the workspace when the job has ended."),
    *CHECKPOINT_FLAGS,
)


def options_of(message: type[Message], flags: Sequence[Flag]) -> list[click.Parameter]:
    """Make the options that `fields.fill` puts into such a message."""
    declared = [_declared(message, flag) for flag in flags]
    return [click.Option(names, **settings) for names, settings in declared]


def with_options(message: type[Message], flags: Sequence[Flag]) -> Callable[[Function], Function]:
    """Return a decorator that adds those options to a command."""

    def decorate(function: Function) -> Function:
        for flag in reversed(flags):
            names, settings = _declared(message, flag)
            function = click.option(*names, **settings)(function)
        return function

    return decorate


def readers_of(flags: Iterable[Flag]) -> dict[str, Reader]:
    """Return the flags' own readers, by path."""
    return {flag.path: flag.read for flag in flags if flag.read is not None}


def _declared(message: type[Message], flag: Flag) -> tuple[list[str], dict[str, Any]]:
    """Return an option's names, and its settings."""
    field = field_of(message, flag.path)
    name = flag.path.replace(".", "__")
    if flag.flag_value is not None:
        return [flag.option, name], {"flag_value": flag.flag_value, "default": None, "help": flag.help}
    if cases := cases_of(field):
        return [flag.option, name], {"type": click.Choice(cases), "help": flag.help}
    if field.type == FieldDescriptor.TYPE_BOOL:
        both = f"{flag.option}/--no-{flag.option.removeprefix('--')}"
        return [both, name], {"default": None, "help": flag.help}
    settings = {"metavar": flag.metavar, "multiple": field.is_repeated, "help": flag.help}
    return [flag.option, name], {"type": flag.type or _type_of(field), **settings}


def _type_of(field: FieldDescriptor) -> click.ParamType[str]:
    if field.enum_type is not None:
        return click.Choice(list(choices(field.enum_type)))
    return options.TEXT
