"""The engine `anthropic` of a StartExecutionRequest."""

from dataclasses import asdict

from boatyard.execution.v1 import execution_pb2 as pb

from services.execution import toolbox
from services.execution.engines.anthropic.task import ModelTask
from services.execution.engines.spec import EngineSpec
from services.execution.validation import Violations

_PROMPT_BYTES = 1024 * 1024
_SYSTEM_PROMPT_BYTES = 64 * 1024
_MODEL_CHARACTERS = 255
_DEFAULT_TURNS, _MAX_TURNS = 50, 10_000
_DEFAULT_TOKENS, _MAX_TOKENS = 16_384, 128_000


def violations(spec: pb.ExecutionSpec) -> Violations:
    """Return what is wrong with the model's task."""
    engine = spec.anthropic
    problems: Violations = []
    if not engine.model or len(engine.model) > _MODEL_CHARACTERS:
        problems.append(("spec.anthropic.model", f"is required, of at most {_MODEL_CHARACTERS} characters"))
    if not engine.prompt.strip() or len(engine.prompt.encode()) > _PROMPT_BYTES:
        problems.append(("spec.anthropic.prompt", f"is required, of at most {_PROMPT_BYTES} bytes"))
    if len(engine.system_prompt.encode()) > _SYSTEM_PROMPT_BYTES:
        problems.append(("spec.anthropic.system_prompt", f"must be at most {_SYSTEM_PROMPT_BYTES} bytes"))
    if engine.HasField("max_turns") and not 1 <= engine.max_turns <= _MAX_TURNS:
        problems.append(("spec.anthropic.max_turns", f"must be from 1 to {_MAX_TURNS}"))
    if engine.HasField("max_tokens") and not 1 <= engine.max_tokens <= _MAX_TOKENS:
        problems.append(("spec.anthropic.max_tokens", f"must be from 1 to {_MAX_TOKENS}"))
    if engine.HasField("token_budget") and engine.token_budget <= 0:
        problems.append(("spec.anthropic.token_budget", "must be more than 0"))
    if unknown := sorted(set(engine.ask_before) - set(toolbox.TOOLS)):
        text = f"there is no tool {unknown[0]!r}; there are {', '.join(toolbox.TOOLS)}"
        problems.append(("spec.anthropic.ask_before", text))
    return problems


def container_violations(_: pb.ExecutionSpec) -> Violations:
    """Return what is not available in a container, which is nothing."""
    return []


def engine_from_proto(spec: pb.ExecutionSpec) -> EngineSpec:
    """Read a specification that has no violations: the program is the one with the model's tools."""
    engine = spec.anthropic
    task = ModelTask(
        model=engine.model,
        prompt=engine.prompt,
        system_prompt=engine.system_prompt,
        max_turns=engine.max_turns if engine.HasField("max_turns") else _DEFAULT_TURNS,
        max_tokens=engine.max_tokens if engine.HasField("max_tokens") else _DEFAULT_TOKENS,
        token_budget=engine.token_budget if engine.HasField("token_budget") else None,
        ask_before=tuple(engine.ask_before),
    )
    return EngineSpec(
        argv=toolbox.ARGV,
        container_argv=(b"python3", *toolbox.ARGV[1:]),
        task=asdict(task),
        read_only_paths=(toolbox.PROGRAM,),
    )
