"""Options as data: what an option sets, and how its text is read, is told by the field of the message that it names."""

from collections.abc import Sequence
from dataclasses import dataclass

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.cli import options
from services.cli.fields import choices, field_of


@dataclass(frozen=True, slots=True)
class Flag:
    """An option, and the field that it sets; `is_fixed` for one that cannot be changed afterwards."""

    option: str
    path: str
    help: str
    metavar: str | None = None
    is_fixed: bool = False


LIMIT_FLAGS = (
    Flag("--memory", "agent.memory_bytes", "Memory that the agent's processes may have together, such as 2G.", "SIZE"),
    Flag("--processes", "agent.processes", "Processes and threads that the agent may have at once.", "N"),
    Flag("--disk", "agent.disk_bytes", "How much its workspace may grow, such as 5G.", "SIZE"),
    Flag("--output", "agent.output_bytes", "How much the agent may write to its output, such as 100M.", "SIZE"),
    Flag("--cpu", "agent.cpu_seconds", "Seconds on a processor that its processes may take together.", "S"),
    Flag(
        "--allow-host",
        "agent.allowed_hosts",
        "A host that the agent may reach; may be repeated.",
        "HOST",
    ),
    Flag("--ask-before", "agent.ask_before", "A tool of a model's to be asked about; may be repeated.", "TOOL"),
    Flag("--image", "agent.image", "The image of the agent's container, with --sandbox container.", "NAME"),
    Flag("--terminal", "agent.terminal", "Give a command a terminal, for `boatyard attach`."),
)
"""How far an agent may go, and who is asked."""

CHECKPOINT_FLAGS = (
    Flag(
        "--approve-before",
        "policy.checkpoints",
        "Stages before which a person is asked: of base, start, verify, push, end; or none.",
        "STAGE,…",
    ),
    Flag(
        "--answer-within", "policy.checkpoint_timeout", "Seconds after which no answer means no (default: a day).", "S"
    ),
    Flag("--max-extra-rounds", "policy.max_extra_rounds", "How often changes may be asked for (default: 5).", "N"),
    Flag("--agent-may-ask", "policy.agent_may_ask", "Let the agent ask a person, by the file $BOATYARD_ASK_FILE."),
)
"""Where the work waits for a person."""

RETRY_FLAGS = (
    Flag("--max-attempts", "policy.max_attempts", "How often the job is tried, at most.", "N"),
    Flag(
        "--retry-on",
        "policy.retry_on",
        "A reason of failure after which it is tried again, such as AGENT_FAILED; may be repeated.",
        "REASON",
    ),
    Flag("--retry-from", "policy.retry_from", "What the next try begins from."),
)
"""How often a job is tried, and when."""

AGENT_FLAGS = (
    Flag("--engine", "agent.engine", "What drives the agent.", "NAME"),
    Flag("--command", "agent.command", "The agent: a line for /bin/sh.", "LINE"),
    Flag("--system-prompt", "agent.system_prompt", "What the agent is told before every prompt.", "TEXT|@FILE"),
    Flag("--model", "agent.model", "The model, as its provider names it.", "NAME"),
    Flag("--max-turns", "agent.max_turns", "How often the model may be asked.", "N"),
    Flag("--max-tokens", "agent.max_tokens", "Tokens that one answer of the model may have.", "N"),
    Flag("--env", "agent.environment", "A variable of the agent's environment; may be repeated.", "NAME=VALUE"),
    Flag("--timeout", "agent.timeout", "Seconds that the agent may take.", "S"),
    Flag("--idle-timeout", "agent.idle_timeout", "Seconds that the agent may write nothing.", "S"),
    Flag("--sandbox", "agent.sandbox_tier", "How strongly the agent is kept apart."),
    Flag("--network", "agent.network", "What of the network the agent reaches."),
    *LIMIT_FLAGS,
    Flag("--verify", "policy.verify_command", "A line for /bin/sh that checks the result.", "LINE"),
    Flag("--verify-timeout", "policy.verify_timeout", "Seconds that the check may take.", "S"),
    Flag("--publish", "policy.publish", "What becomes of a result."),
    *RETRY_FLAGS,
    Flag("--retention", "policy.retention", "What becomes of a workspace when its job has ended."),
    *CHECKPOINT_FLAGS,
)


def options_of(message: type[Message], flags: Sequence[Flag]) -> list[click.Parameter]:
    """Make the options that `fields.fill` puts into such a message."""
    made: list[click.Parameter] = []
    for flag in flags:
        field = field_of(message, flag.path)
        name = flag.path.replace(".", "__")
        if field.type == FieldDescriptor.TYPE_BOOL:
            both = f"{flag.option}/--no-{flag.option.removeprefix('--')}"
            made.append(click.Option([both, name], default=None, help=flag.help))
            continue
        kind_of: click.ParamType[str] = options.TEXT
        if field.enum_type is not None:
            kind_of = click.Choice(list(choices(field.enum_type)))
        elif field.type == FieldDescriptor.TYPE_BYTES:
            kind_of = click.STRING
        made.append(
            click.Option(
                [flag.option, name], type=kind_of, metavar=flag.metavar, multiple=field.is_repeated, help=flag.help
            )
        )
    return made
