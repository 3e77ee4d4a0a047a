"""The engine `command` of a StartExecutionRequest."""

from boatyard.execution.v1 import execution_pb2 as pb

from services.execution.engines.spec import EngineSpec
from services.execution.model import TerminalSize
from services.execution.validation import Violations

_ARGV_BYTES = 128 * 1024
_PROMPT_BYTES = 1024 * 1024
# The kernel allows 128 KiB for one argument, including its closing NUL.
_ARGUMENT_BYTES = 128 * 1024 - 1


def violations(spec: pb.ExecutionSpec) -> Violations:
    """Return what is wrong with the command."""
    engine = spec.command
    problems: Violations = []
    if not engine.argv or not engine.argv[0]:
        problems.append(("spec.command.argv", "is required"))
    elif engine.argv[0].startswith("-"):
        problems.append(("spec.command.argv", "must begin with a program, whose name never begins with a dash"))
    if any("\0" in part for part in engine.argv) or sum(len(part.encode()) for part in engine.argv) > _ARGV_BYTES:
        problems.append(("spec.command.argv", f"must be at most {_ARGV_BYTES} bytes, and none of them NUL"))
    if engine.prompt_delivery not in pb.CommandEngine.PromptDelivery.values():
        problems.append(("spec.command.prompt_delivery", "must be one of the contract's deliveries"))
    if engine.HasField("terminal") and engine.prompt and not _by_argument(engine):
        problems.append(("spec.command.prompt_delivery", "must be ARGUMENT when standard input is a terminal"))
    prompt_bytes = len(engine.prompt.encode())
    if prompt_bytes > _PROMPT_BYTES:
        problems.append(("spec.command.prompt", f"must be at most {_PROMPT_BYTES} bytes"))
    elif _by_argument(engine) and ("\0" in engine.prompt or prompt_bytes > _ARGUMENT_BYTES):
        text = f"must be at most {_ARGUMENT_BYTES} bytes, and none of them NUL, to be an argument; use STDIN"
        problems.append(("spec.command.prompt", text))
    return problems


def container_violations(spec: pb.ExecutionSpec) -> Violations:
    """Return what the command needs that is not available in a container."""
    return [("spec.command.terminal", "cannot be had in a container")] if spec.command.HasField("terminal") else []


def engine_from_proto(spec: pb.ExecutionSpec) -> EngineSpec:
    """Read a specification that has no violations: the program is the agent."""
    engine = spec.command
    size = engine.terminal
    argv = (*engine.argv, engine.prompt) if _by_argument(engine) else engine.argv
    return EngineSpec(
        argv=tuple(argument.encode() for argument in argv),
        stdin=b"" if _by_argument(engine) else engine.prompt.encode(),
        terminal=TerminalSize(size.rows, size.columns) if engine.HasField("terminal") else None,
    )


def _by_argument(engine: pb.CommandEngine) -> bool:
    return engine.prompt_delivery == pb.CommandEngine.PROMPT_DELIVERY_ARGUMENT
