"""How the engine reads its settings; its runs are in `run`."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from services.agent.settings import AgentSettings, CommandEngine, PromptDelivery
from services.execution.engine import Engine, EngineSpec, RunContext
from services.execution.engines.command.preset import line_task, preset_spec, told
from services.execution.engines.command.run import run_command
from services.execution.model import Result, TerminalSize
from services.sandbox.spec import Tier

if TYPE_CHECKING:
    from services.execution.presets.presets import Presets

_ARGUMENT_BYTES: Final = 128 * 1024 - 1  # the kernel allows 128 KiB for one argument, including its closing NUL
_SHELL: Final = "/bin/sh"
# After `fi` or `)` there can be no argument, after `echo fi` there can: only a shell knows which it is.
_MAY_END_A_COMPOUND: Final = re.compile(r"(^|[\s;&|])(fi|done|esac|\})$|\)$")
_APPENDED_IF_IT_CAN_BE: Final = """
/bin/sh -n -c "$1" 2>/dev/null || set -- "$0" "$2"
line=$1; shift; exec /bin/sh -c "$line" /bin/sh "$@"
"""
_WINDOW: Final = TerminalSize(24, 80)  # of a terminal that nobody has attached to yet


class ProgramEngine(Engine[CommandEngine]):
    """The program is the agent: a line for /bin/sh, or an agent that the machine knows by its name."""

    uses_door = True

    def violations(self, agent: AgentSettings, own: CommandEngine, prompt: str) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the command, and with the prompt as its argument."""
        yield from ((f"spec.agent.command.{field}", rule) for field, rule in own.violations())
        if own.wants_terminal and agent.tier is Tier.CONTAINER:
            yield "spec.agent.command.terminal", "cannot be had in a container"
        if own.prompt_is_argument and ("\0" in prompt or len(prompt.encode()) > _ARGUMENT_BYTES):
            yield "spec.prompt", f"must be at most {_ARGUMENT_BYTES} bytes, and none of them NUL, to be an argument"

    def spec(self, agent: AgentSettings, own: CommandEngine, prompt: str, presets: "Presets") -> EngineSpec:
        """Return the program. A prompt that is an argument is `$1` of the line, and where it can be it is appended."""
        if own.preset:
            return preset_spec(agent, own, prompt, presets)
        line = (own.line or "").rstrip()
        as_argument = own.prompt_is_argument and bool(prompt)
        converses = own.prompt_delivery is PromptDelivery.ACP
        argv = [_SHELL, "-c", line]
        if as_argument:
            argv = _with_argument(line, prompt)
        return EngineSpec(
            argv=tuple(part.encode() for part in argv),
            environment=told(agent),
            stdin=b"" if as_argument else prompt.encode(),
            terminal=_WINDOW if own.wants_terminal else None,
            task=asdict(line_task(agent, own)) if converses else None,
            converses=converses,
        )

    def run(self, context: RunContext) -> Result:
        """Start the program of a run, and stay with it until none of its processes is left."""
        return run_command(context)


def _with_argument(line: str, prompt: str) -> list[str]:
    appended = f'{line} "$@"'
    if line.endswith((";", "&", "|")):
        return [_SHELL, "-c", line, _SHELL, prompt]
    if not _MAY_END_A_COMPOUND.search(line):
        return [_SHELL, "-c", appended, _SHELL, prompt]
    return [_SHELL, "-c", _APPENDED_IF_IT_CAN_BE, line, appended, prompt]


ENGINE: Final = ProgramEngine()
