"""What an engine is: each module of `engines` has one, as ENGINE.

The service asks it what to start, and a runner has it drive the agent. Runners are forked from a process that keeps
what it has imported: what is slow to import, an engine imports in `run`, and in `preload` if that will be used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from services.agent.providers import ModelProvider, ModelWire
from services.agent.recordings import Matching
from services.agent.settings import AgentSettings, EngineSettings
from services.execution.cgroups.group import ControlGroup
from services.execution.door.tapes import Tapes
from services.execution.eventlog import EventWriter
from services.execution.inbox.asks import Asks
from services.execution.model import Plan, Result, TerminalSize
from services.execution.rundir.directory import RunDirectory
from services.sandbox.launch import bare_cwd
from services.sandbox.spec import Tier

if TYPE_CHECKING:
    from services.execution.presets.presets import Presets

_ENGINES = "services.execution.engines"

Own = TypeVar("Own", bound=EngineSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an engine makes of an agent's settings: the program in the sandbox, and what only the engine understands."""

    argv: tuple[bytes, ...]
    """The program to run in the sandbox."""
    container_argv: tuple[bytes, ...] = ()
    """The program to run in a container, whose system comes from its image; empty when it is the same."""
    environment: Mapping[str, bytes] = field(default_factory=dict)
    """What the engine tells the program, by variable; it overrides the agent's environment."""
    stdin: bytes = b""
    """What the program reads from its standard input."""
    terminal: TerminalSize | None = None
    """The size of the terminal that the program is started on; None for no terminal."""
    task: Mapping[str, Any] | None = None
    """The task for the engine itself, as JSON; it is passed on in the run directory."""
    read_only_paths: tuple[Path, ...] = ()
    """Paths that the sandbox must make visible to the program."""
    path: tuple[Path, ...] = ()
    """Directories for the end of the program's PATH."""
    home: Mapping[str, str] = field(default_factory=dict)
    """Files that the program finds in HOME, unless there are files of that name, by their paths there."""
    leave_out: tuple[str, ...] = ()
    """What the program leaves in the workspace that is no result, as patterns of a .gitignore file."""
    converses: bool = False
    """True when the program takes messages and may ask for permission, as engines do whose traits say so."""
    missing: str = ""
    """Why the program cannot be started on this machine, and how to fix it; empty when nothing is known to be wrong."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run, whose lock is held. This process is in `group`, if there is one, and must leave it soon."""

    run: RunDirectory
    plan: Plan
    writer: EventWriter
    signal_fd: int
    """Becomes readable when a signal has arrived: see `processes.signals`."""
    group: ControlGroup | None
    providers: tuple[ModelProvider, ...] = ()
    """Who serves the agent's models, through the door."""

    @property
    def asks(self) -> Asks | None:
        """What is asked before a request to a model is sent; None when nothing is."""
        plan = self.plan
        return Asks(self.run.path, must_answer=plan.reserves_model_use) if plan.asks_before_requests else None

    def tapes(self) -> Tapes:
        """Return what the door records and replays, by the redactor that the writer has now."""
        plan, spec = self.plan, self.plan.sandbox
        return Tapes(
            record_to=self.run.recording if plan.records else None,
            replay_from=self.run.replay if plan.replay else None,
            matching=plan.replay or Matching.STRICT,
            redactor=self.writer.redactor,
            head={"execution_id": plan.execution_id, "engine": plan.engine},
            floor_bytes=plan.bounds.disk_floor_bytes,
            workspace=str(bare_cwd(spec) if spec.tier is Tier.NONE else spec.cwd),
        )


class Engine(Generic[Own]):
    """One engine. `agent` has all defaults, `own` is its part for this engine, and the prompt is at most 1 MiB."""

    speaks: ModelWire | None = None
    """The wire of the providers that it asks itself; None when it asks no model."""
    uses_door = False
    """True when its agent asks models through the door, if there are providers for it."""

    def violations(self, agent: AgentSettings, own: Own, prompt: str) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for what this engine refuses; a field's path begins at the specification."""
        del agent, own, prompt
        yield from ()

    def spec(self, agent: AgentSettings, own: Own, prompt: str, presets: "Presets") -> EngineSpec:
        """Return what to start, for settings that have no violations. `presets` are the agents known by name."""
        raise NotImplementedError

    def preload(self) -> None:
        """Import what runs need, in the process that runners are forked from. Starts no thread and connects nowhere."""

    def run(self, context: RunContext) -> Result:
        """Drive an agent from its start, or from where a lost runner stopped, until no process of it is left."""
        raise NotImplementedError


def load(name: str) -> Engine[Any]:
    """Return the engine of that name, which is its field in the contract. Raises LookupError."""
    try:
        engine: Engine[Any] = import_module(f"{_ENGINES}.{name}").ENGINE
    except ModuleNotFoundError as error:
        if error.name != f"{_ENGINES}.{name}":
            raise
        text = f"the plan is for engine {name!r}, which this version does not have: start the service again"
        raise LookupError(text) from None
    return engine
