"""The settings of an agent, with the names, units and enums of the contract, which explains each of them.

The same values are a layer (a template's, a worker's, a work item's, a job's), a job's merged settings, and what a node
is asked to run. Standard library only: runners import it.
"""

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from services.redaction.needles import SHORTEST
from services.sandbox.spec import Network, Tier

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SAYS_SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|(?:API|ACCESS|PRIVATE|SECRET)_?KEY)$",
    re.IGNORECASE,
)

DEFAULT_TIMEOUT = timedelta(hours=1)
DEFAULT_TURNS = 50
MAX_ENVIRONMENT_ENTRIES = 128
MAX_ENVIRONMENT_BYTES = 64 << 10


TOOL_KINDS = frozenset(
    {"read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"}
)
"""The kinds of tools that the Agent Client Protocol has; a tool of no known kind is `other`."""

MODEL_TOOLS = ("bash", "view", "create", "replace", "insert", "search")
"""The tools of a model that works by itself; the toolbox in its sandbox has them."""


class PromptDelivery(enum.StrEnum):
    """How a command gets the prompt."""

    STDIN = "STDIN"
    ARGUMENT = "ARGUMENT"
    ACP = "ACP"


class EngineSettings:
    """The settings of one engine; `name` is that of its field in the contract, and tells engines apart in JSON."""

    __slots__ = ()
    name: str

    @property
    def prompt_is_argument(self) -> bool:
        """True when the prompt is passed as an argument, which the kernel limits."""
        return False

    @property
    def wants_terminal(self) -> bool:
        """True when the agent is started on a terminal."""
        return False

    def violations(self) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for what shows only when all layers are merged."""
        yield from ()

    def above(self, below: Self) -> Self:
        """Return what of the layer below is left under this one, before their fields are merged."""
        return below


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEngine(EngineSettings):
    """Any program as the agent. An empty `line` or `preset` hides that of the layers below, and means none."""

    name: Literal["command"] = "command"
    line: str | None = None
    prompt_delivery: PromptDelivery | None = None
    terminal: bool | None = None
    preset: str | None = None
    ask_before: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()

    @property
    def is_held(self) -> bool:
        """True when an agent that asks whether it may call a tool may not call all of them."""
        return bool(self.ask_before or self.refuse)

    @property
    def prompt_is_argument(self) -> bool:
        """True also with a terminal, from which the program reads what people type."""
        return self.wants_terminal if self.prompt_delivery is None else self.prompt_delivery is PromptDelivery.ARGUMENT

    @property
    def wants_terminal(self) -> bool:
        """True when the program is started on a terminal."""
        return bool(self.terminal)

    def above(self, below: Self) -> Self:
        """A preset is a whole command, and takes the place of the one below; a line takes the place of a preset."""
        if self.preset:
            return replace(below, line=None, prompt_delivery=None, terminal=None, preset=None)
        return below if self.line is None else replace(below, preset=None)

    def violations(self) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for a command without a line, for two of them, and for a prompt on a terminal."""
        for name in ("ask_before", "refuse"):
            if unknown := sorted(set(getattr(self, name)) - TOOL_KINDS):
                yield name, f"names no kind of tools: {unknown[0]!r}; there are {', '.join(sorted(TOOL_KINDS))}"
        if self.preset:
            own = {"line": self.line, "prompt_delivery": self.prompt_delivery, "terminal": self.terminal}
            rule = f"must be left out with the preset {self.preset} (--agent)"
            yield from ((name, rule) for name, value in own.items() if value)
            return
        if not (self.line or "").strip():
            yield "line", "is required, or a preset (--agent): no layer of settings has one, nor has AGENT_COMMAND"
        if self.is_held and self.prompt_delivery is not PromptDelivery.ACP:
            yield "ask_before" if self.ask_before else "refuse", "needs an agent that asks: --prompt-delivery acp"
        if self.terminal and not self.prompt_is_argument:
            yield "terminal", "needs a command that gets its prompt as an argument"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicEngine(EngineSettings):
    """A model with Boatyard's tools as the agent."""

    name: Literal["anthropic"] = "anthropic"
    max_tokens: int | None = None
    ask_before: tuple[str, ...] = ()

    def violations(self) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for a tool that there is not."""
        if unknown := sorted(set(self.ask_before) - set(MODEL_TOOLS)):
            yield "ask_before", f"names no tool: {unknown[0]!r}; there are {', '.join(MODEL_TOOLS)}"


Engine = CommandEngine | AnthropicEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How an agent runs. None, an empty list, and a key missing in a map leave it to the layer below or to the node.

    An empty `system_prompt`, `model` or `image` hides the value of the layers below, and means none.
    """

    engine: Engine | None = None
    system_prompt: str | None = None
    model: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: timedelta | None = None
    idle_timeout: timedelta | None = None
    sandbox_tier: Tier | None = None
    network: Network | None = None
    max_turns: int | None = None
    token_budget: int | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    disk_bytes: int | None = None
    output_bytes: int | None = None
    cpu_seconds: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    image: str | None = None
    open_files: int | None = None
    file_size_bytes: int | None = None
    scratch_bytes: int | None = None
    providers: tuple[str, ...] = ()
    record: bool | None = None

    @property
    def chosen_engine(self) -> Engine:
        """The engine, with the contract's default."""
        return self.engine or CommandEngine()

    @property
    def tier(self) -> Tier:
        """The sandbox tier, with the contract's default."""
        return self.sandbox_tier or Tier.BUBBLEWRAP


DEFAULTS = AgentSettings(
    engine=CommandEngine(), timeout=DEFAULT_TIMEOUT, sandbox_tier=Tier.BUBBLEWRAP, network=Network.NONE
)
"""What holds where no layer says anything. It has no command and no model, which are settings of the gateway."""

DEFAULT_ENGINE = DEFAULTS.chosen_engine.name

Layer = TypeVar("Layer", bound="DataclassInstance")


def overlay(base: Layer, over: Layer) -> Layer:
    """Lay one layer over another. What `over` sets wins; maps are merged by key, settings of one engine by field."""
    changes: dict[str, Any] = {}
    for each in fields(over):
        below, value = getattr(base, each.name), getattr(over, each.name)
        if isinstance(value, Mapping):
            changes[each.name] = {**below, **value}
        elif isinstance(value, Engine) and type(value) is type(below):
            changes[each.name] = overlay(value.above(below), value)  # type: ignore[arg-type] # of one type
        elif value not in (None, ()):
            changes[each.name] = value
    return replace(base, **changes)


def secret_complaints(secrets: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (name, rule) for secrets that cannot be redacted."""
    for name, value in secrets.items():
        if len(value.encode().strip()) < SHORTEST:
            yield name, f"must be at least {SHORTEST} bytes without the space around them"


def with_secrets_apart(agent: AgentSettings) -> AgentSettings:
    """Return settings whose variables with a name like API_TOKEN are secrets, if they can be redacted.

    A secret hides the plain variable of its name.
    """
    said = {name: value for name, value in agent.environment.items() if _SAYS_SECRET.search(name)}
    unhidden = {name for name, _ in secret_complaints(said)}
    secrets = {**{name: value for name, value in said.items() if name not in unhidden}, **agent.secrets}
    shown = {name: value for name, value in agent.environment.items() if name not in secrets}
    return replace(agent, environment=shown, secrets=secrets)


def names_only(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return secrets without their values, which are stored and sent apart from all other settings."""
    return dict.fromkeys(secrets, "")


def environment_complaint(environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with an environment as a whole, or None. For single layers, and for all of them merged."""
    if len(environment) > MAX_ENVIRONMENT_ENTRIES:
        return f"must have at most {MAX_ENVIRONMENT_ENTRIES} entries"
    size = sum(len(name.encode()) + len(value.encode()) for name, value in environment.items())
    if size > MAX_ENVIRONMENT_BYTES:
        return f"must have at most {MAX_ENVIRONMENT_BYTES >> 10} KiB together"
    return None
