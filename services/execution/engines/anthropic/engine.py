"""How the engine reads its settings; its runs are in `run`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from services.agent.providers import ModelWire
from services.agent.settings import DEFAULT_TURNS, AgentSettings, AnthropicEngine
from services.execution import toolbox
from services.execution.engine import Engine, EngineSpec, RunContext
from services.execution.engines.anthropic.task import ModelTask
from services.execution.model import Result

if TYPE_CHECKING:
    from services.execution.presets.presets import Presets

_DEFAULT_TOKENS: Final = 16_384


class ModelEngine(Engine[AnthropicEngine]):
    """A model drives the agent; the program in the sandbox is the one with the model's tools."""

    speaks = ModelWire.MESSAGES
    uses_door = True

    def violations(self, agent: AgentSettings, own: AnthropicEngine, prompt: str) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the model's task."""
        if not agent.model:
            yield "spec.agent.model", "is required"
        if not prompt.strip():
            yield "spec.prompt", "is required"
        yield from ((f"spec.agent.anthropic.{field}", rule) for field, rule in own.violations())

    def spec(self, agent: AgentSettings, own: AnthropicEngine, prompt: str, presets: "Presets") -> EngineSpec:
        """Return the program with the model's tools, and the model's task."""
        del presets
        task = ModelTask(
            model=agent.model or "",
            prompt=prompt,
            system_prompt=agent.system_prompt or "",
            max_turns=agent.max_turns or DEFAULT_TURNS,
            max_tokens=own.max_tokens or _DEFAULT_TOKENS,
            token_budget=agent.token_budget,
            ask_before=own.ask_before,
        )
        return EngineSpec(
            argv=toolbox.ARGV,
            container_argv=(b"python3", *toolbox.ARGV[1:]),
            task=asdict(task),
            read_only_paths=(toolbox.PROGRAM,),
        )

    def preload(self) -> None:
        """Import the loop and the client of the model, which takes 0.7 s and 60 MB."""
        from services.execution.engines.anthropic import client, conversation, run  # noqa: F401, PLC0415

    def run(self, context: RunContext) -> Result:
        """Start or resume the model of a run, and stay with it until no process of the run is left."""
        from services.execution.engines.anthropic.run import run_agent_loop  # noqa: PLC0415 - slow to import

        return run_agent_loop(context)


ENGINE: Final = ModelEngine()
