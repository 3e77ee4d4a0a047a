"""The engine of a StartExecutionRequest: the program that it comes to, and what that program, or a model, is given."""

from boatyard.execution.v1 import execution_pb2 as pb

from services.execution import toolbox
from services.execution.model import ModelTask, TerminalSize
from services.execution.wire import messages
from services.execution.wire.messages import Violations

_ARGV_BYTES = 128 * 1024
_PROMPT_BYTES = 1024 * 1024
# The kernel takes 128 KiB for one argument, its closing NUL included.
_ARGUMENT_BYTES = 128 * 1024 - 1
_SYSTEM_PROMPT_BYTES = 64 * 1024
_MODEL_CHARACTERS = 255
_DEFAULT_TURNS, _MAX_TURNS = 50, 10_000
_DEFAULT_TOKENS, _MAX_TOKENS = 16_384, 128_000


def violations(spec: pb.ExecutionSpec) -> Violations:
    """What is wrong with the engine."""
    match spec.WhichOneof("engine"):
        case "command":
            return _command_violations(spec.command)
        case "anthropic":
            return _model_violations(spec.anthropic)
        case _:
            return [("spec.command", "is required, or spec.anthropic: no other engine is known here")]


def is_model(spec: pb.ExecutionSpec) -> bool:
    """Whether a model is the agent; then the program in the sandbox is the one that has its tools."""
    return spec.WhichOneof("engine") == "anthropic"


def argv(spec: pb.ExecutionSpec, *, contained: bool) -> tuple[bytes, ...]:
    """Return the program and its arguments; `contained` are those that have an image for their system."""
    if is_model(spec):
        return (b"python3", *toolbox.ARGV[1:]) if contained else toolbox.ARGV
    own = tuple(spec.command.argv)
    return (*own, spec.command.prompt) if _by_argument(spec.command) else own


def stdin(spec: pb.ExecutionSpec) -> bytes:
    """Return what a command finds on its standard input."""
    return b"" if is_model(spec) or _by_argument(spec.command) else spec.command.prompt


def terminal(spec: pb.ExecutionSpec) -> TerminalSize | None:
    """Return the size of the terminal that a command is started on, if it is."""
    size = spec.command.terminal
    return TerminalSize(size.rows, size.columns) if spec.command.HasField("terminal") else None


def task(spec: pb.ExecutionSpec) -> ModelTask | None:
    """Return what a model has to do; None where a command is the agent."""
    if not is_model(spec):
        return None
    engine = spec.anthropic
    return ModelTask(
        model=engine.model,
        prompt=engine.prompt,
        system_prompt=engine.system_prompt,
        max_turns=engine.max_turns if engine.HasField("max_turns") else _DEFAULT_TURNS,
        max_tokens=engine.max_tokens if engine.HasField("max_tokens") else _DEFAULT_TOKENS,
        token_budget=engine.token_budget if engine.HasField("token_budget") else None,
        ask_before=tuple(engine.ask_before),
    )


def _by_argument(engine: pb.CommandEngine) -> bool:
    return engine.prompt_delivery == pb.CommandEngine.PROMPT_DELIVERY_ARGUMENT


def _command_violations(engine: pb.CommandEngine) -> Violations:
    found: Violations = []
    if not engine.argv or not engine.argv[0]:
        found.append(("spec.command.argv", "is required"))
    elif engine.argv[0].startswith(b"-"):
        found.append(("spec.command.argv", "must begin with a program, whose name never begins with a dash"))
    if any(b"\0" in part for part in engine.argv) or sum(map(len, engine.argv)) > _ARGV_BYTES:
        found.append(("spec.command.argv", f"must be at most {_ARGV_BYTES} bytes, and none of them NUL"))
    if engine.prompt_delivery not in pb.CommandEngine.PromptDelivery.values():
        found.append(("spec.command.prompt_delivery", "must be a delivery of the contract"))
    if engine.HasField("terminal"):
        found += messages.size_violations("spec.command.terminal", engine.terminal)
        if engine.prompt and not _by_argument(engine):
            found.append(("spec.command.prompt_delivery", "must be ARGUMENT where standard input is a terminal"))
    if len(engine.prompt) > _PROMPT_BYTES:
        found.append(("spec.command.prompt", f"must be at most {_PROMPT_BYTES} bytes"))
    elif _by_argument(engine) and (b"\0" in engine.prompt or len(engine.prompt) > _ARGUMENT_BYTES):
        text = f"must be at most {_ARGUMENT_BYTES} bytes, and none of them NUL, to be an argument; use STDIN"
        found.append(("spec.command.prompt", text))
    return found


def _model_violations(engine: pb.AnthropicEngine) -> Violations:
    found: Violations = []
    if not engine.model or len(engine.model) > _MODEL_CHARACTERS:
        found.append(("spec.anthropic.model", f"is required, of at most {_MODEL_CHARACTERS} characters"))
    if not engine.prompt.strip() or len(engine.prompt.encode()) > _PROMPT_BYTES:
        found.append(("spec.anthropic.prompt", f"is required, of at most {_PROMPT_BYTES} bytes"))
    if len(engine.system_prompt.encode()) > _SYSTEM_PROMPT_BYTES:
        found.append(("spec.anthropic.system_prompt", f"must be at most {_SYSTEM_PROMPT_BYTES} bytes"))
    if engine.HasField("max_turns") and not 1 <= engine.max_turns <= _MAX_TURNS:
        found.append(("spec.anthropic.max_turns", f"must be from 1 to {_MAX_TURNS}"))
    if engine.HasField("max_tokens") and not 1 <= engine.max_tokens <= _MAX_TOKENS:
        found.append(("spec.anthropic.max_tokens", f"must be from 1 to {_MAX_TOKENS}"))
    if engine.HasField("token_budget") and engine.token_budget <= 0:
        found.append(("spec.anthropic.token_budget", "must be more than 0"))
    if unknown := sorted(set(engine.ask_before) - set(toolbox.TOOLS)):
        text = f"there is no tool {unknown[0]!r}; there are {', '.join(toolbox.TOOLS)}"
        found.append(("spec.anthropic.ask_before", text))
    return found
