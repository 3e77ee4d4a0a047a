"""What is started for an agent that the machine knows by its name: its preset, made a command."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any, Final

from services.agent.settings import AgentSettings, CommandEngine
from services.execution.engine import EngineSpec
from services.execution.engines.command.acp.task import ConversationTask
from services.execution.presets.preset import ACP
from services.sandbox.spec import Tier

if TYPE_CHECKING:
    from services.execution.presets.presets import Presets

_PROGRAM: Final = "BOATYARD_AGENT_PROGRAM"
_ASKS: Final = "BOATYARD_AGENT_ASKS"


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetTask:
    """What a runner needs to know of a preset: how its agent's lines are read, and what its end means."""

    title: str
    install: str
    reader: str
    done: str = ""
    failed: str = ""
    exit_codes: Mapping[str, str] = field(default_factory=dict)
    """Reasons by exit codes, which JSON has as texts."""
    conversation: Mapping[str, Any] | None = None
    """How the agent is spoken to, as a ConversationTask; None for one that only reads its prompt."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "PresetTask":
        """Read a task that this version or another has written."""
        return cls(**{each.name: fields[each.name] for each in dataclass_fields(cls) if each.name in fields})


def conversation_of(agent: AgentSettings, own: CommandEngine, mode: str = "") -> dict[str, Any]:
    """Return the task of a conversation, as JSON."""
    return asdict(
        ConversationTask(
            mode=mode,
            model=agent.model or "",
            system_prompt=agent.system_prompt or "",
            ask_before=own.ask_before,
            refuse=own.refuse,
        )
    )


def line_task(agent: AgentSettings, own: CommandEngine) -> PresetTask:
    """Return the task of a command of one's own that is spoken to."""
    return PresetTask(title="the command", install="", reader=ACP, conversation=conversation_of(agent, own))


def told(agent: AgentSettings) -> dict[str, bytes]:
    """Return the variables that tell a command its model and its system prompt."""
    known = {"BOATYARD_SYSTEM_PROMPT": agent.system_prompt, "BOATYARD_MODEL": agent.model}
    return {name: value.encode() for name, value in known.items() if value}


def preset_spec(agent: AgentSettings, own: CommandEngine, prompt: str, presets: "Presets") -> EngineSpec:
    """Return what to start for the preset of `own`, or why that cannot be started here."""
    name = own.preset or ""
    if (preset := presets.by_name.get(name)) is None:
        return EngineSpec(argv=(b"false",), missing=presets.missing(name))
    if own.is_held and not preset.asking_mode:
        held = "leave out --ask-before-kind and --refuse-kind, or take another agent"
        text = f"{preset.title} asks nobody before it calls a tool: {held}"
        return EngineSpec(argv=(b"false",), missing=text)
    in_image, tools = agent.tier is Tier.CONTAINER, presets.tools
    program = None if in_image else tools.find(preset.program)
    mode = preset.asking_mode if own.is_held else preset.mode
    task = PresetTask(
        title=preset.title,
        install=preset.install,
        reader=preset.reader,
        done=preset.done,
        failed=preset.failed,
        exit_codes={str(code): reason for code, reason in preset.exit_codes.items()},
        conversation=conversation_of(agent, own, mode) if preset.reader == ACP else None,
    )
    variables = {name: value for name, value in preset.environment.items() if name not in agent.environment}
    if own.is_held:
        variables[_ASKS] = "1"
    return EngineSpec(
        argv=(b"/bin/sh", b"-c", preset.line.encode()),
        environment={
            **{variable: value.encode() for variable, value in variables.items()},
            **told(agent),
            _PROGRAM: preset.program.encode() if program is None else bytes(program),
        },
        stdin=prompt.encode(),
        task=asdict(task),
        read_only_paths=() if in_image else tools.mounted(),
        path=() if in_image else tools.programs(),
        home=preset.home,
        leave_out=preset.leave_out,
        missing="" if in_image else presets.missing(name),
        converses=preset.reader == ACP,
    )
