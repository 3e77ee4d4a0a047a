"""Reads a StartExecutionRequest: the largest of the messages, and the one with the most to get wrong."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1 import sandbox_pb2
from boatyard.workspace.v1 import layout_pb2

from services.common.sandbox import environment
from services.common.sandbox.hosts import HostPattern
from services.common.sandbox.spec import Access, AllowList, Limits, Mount, Network, Overlay, SandboxSpec, Tier
from services.execution import egress, toolbox, wire
from services.execution.model import EXECUTION_ID_VARIABLE, Bounds, ModelTask, Plan, Purpose, StartRequest, TerminalSize
from services.execution.redaction.needles import LONGEST, SHORTEST
from services.execution.settings import ExecutionSettings
from services.execution.wire import Violations

WORKSPACE = Path("/workspace")

_ARGV_BYTES = 128 * 1024
_PROMPT_BYTES = 1024 * 1024
# The kernel takes 128 KiB for one argument, its closing NUL included.
_ARGUMENT_BYTES = 128 * 1024 - 1
_ENVIRONMENT_ENTRIES = 256
_ENVIRONMENT_BYTES = 64 * 1024
_MAX_READ_ONLY_PATHS = 64
_SYSTEM_PROMPT_BYTES = 64 * 1024
_MODEL_CHARACTERS = 255
_DEFAULT_TURNS, _MAX_TURNS = 50, 10_000
_DEFAULT_TOKENS, _MAX_TOKENS = 16_384, 128_000
_LONGEST_S = 7 * 86400.0
_SPARE_PROCESSES = 64
_DEFAULT_WALL_S = 3600.0

_PURPOSES = {pb.ExecutionSpec.Purpose.Value(f"PURPOSE_{purpose}"): purpose for purpose in Purpose}
_TIERS = {sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP: Tier.BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE: Tier.NONE}
_NETWORKS = {sandbox_pb2.Network.Value(f"NETWORK_{network.name}"): network for network in Network}
_MAX_ALLOWED_HOSTS = 256
_LimitName = Literal[
    "memory_bytes", "processes", "cpu_seconds", "open_files", "file_size_bytes", "workspace_bytes", "output_bytes"
]
_LIMITS: tuple[_LimitName, ...] = get_args(_LimitName)
_TimeoutName = Literal["wall_timeout", "idle_timeout"]
_TIMEOUTS: tuple[_TimeoutName, ...] = get_args(_TimeoutName)


class StartReader:
    """Turns what a caller asks for into a plan, filled up from the settings."""

    def __init__(self, settings: ExecutionSettings, guard: Callable[[Path], str | None]) -> None:
        """`guard` says why a host path must not be shown to an agent, or None."""
        self._settings = settings
        self._guard = guard

    def read(self, request: pb.StartExecutionRequest) -> StartRequest:
        """Read what to start. Raises Invalid with all violations."""
        spec = request.spec
        violations = wire.id_violations("execution_id", request.execution_id)
        violations += self._violations(spec)
        wire.refuse(violations)
        return StartRequest(
            execution_id=request.execution_id,
            digest=wire.digest(spec),
            purpose=_PURPOSES[spec.purpose],
            job_id=spec.job_id,
            plan=Plan(
                request.execution_id,
                self._sandbox(request.execution_id, spec),
                self._bounds(spec),
                _task(spec.anthropic) if _is_model(spec) else None,
                tuple(sorted(spec.secrets)),
                _terminal(spec.command),
            ),
            stdin=b"" if _is_model(spec) or _by_argument(spec.command) else spec.command.prompt,
        )

    def _violations(self, spec: pb.ExecutionSpec) -> Violations:
        found = wire.id_violations("spec.job_id", spec.job_id) if spec.job_id else []
        if spec.purpose not in _PURPOSES:
            found.append(("spec.purpose", "is required"))
        if spec.sandbox_tier and spec.sandbox_tier not in _TIERS:
            found.append(("spec.sandbox_tier", "must be a tier of the contract"))
        found += self._network_violations(spec)
        found += self._path_violations(spec)
        found += _engine_violations(spec)
        found += _environment_violations(spec)
        found += _limit_violations(spec.limits)
        return found

    def _network_violations(self, spec: pb.ExecutionSpec) -> Violations:
        if spec.network and spec.network not in _NETWORKS:
            return [("spec.network", "must be a network of the contract")]
        hosts = spec.allowed_hosts
        if self._network(spec) is not Network.ALLOW_LIST:
            return [("spec.allowed_hosts", "must be empty unless the network is ALLOW_LIST")] if hosts else []
        if self._tier(spec) is Tier.NONE:
            return [("spec.network", "can be ALLOW_LIST in a sandbox only: nothing keeps tier NONE from the network")]
        if len(hosts) > _MAX_ALLOWED_HOSTS:
            return [("spec.allowed_hosts", f"must be at most {_MAX_ALLOWED_HOSTS}")]
        found: Violations = []
        for i, host in enumerate(hosts):
            try:
                HostPattern.parse(host)
            except ValueError as error:
                found.append((f"spec.allowed_hosts[{i}]", str(error)))
        return found

    def _network(self, spec: pb.ExecutionSpec) -> Network:
        return _NETWORKS.get(spec.network, self._settings.network)

    def _tier(self, spec: pb.ExecutionSpec) -> Tier:
        return _TIERS.get(spec.sandbox_tier, self._settings.sandbox_tier)

    def _allow(self, spec: pb.ExecutionSpec) -> AllowList:
        hosts = tuple(spec.allowed_hosts) or self._settings.network_allowed_hosts
        return AllowList(hosts, tuple(map(str, self._settings.network_allowed_addresses)))

    def _path_violations(self, spec: pb.ExecutionSpec) -> Violations:
        named = _layout_paths(spec.layout)
        if not named:
            return [("spec.layout", "is required: a path, or layers with lowers, upper and work")]
        if len(spec.read_only_paths) > _MAX_READ_ONLY_PATHS:
            return [("spec.read_only_paths", f"must be at most {_MAX_READ_ONLY_PATHS}")]
        named += [(f"spec.read_only_paths[{i}]", path) for i, path in enumerate(spec.read_only_paths)]
        found: Violations = []
        for field, path in named:
            broken = wire.path_violations(field, path)
            if not broken and (why := self._guard(Path(os.fsdecode(path)))):
                broken = [(field, why)]
            found += broken
        return found

    def _sandbox(self, execution_id: str, spec: pb.ExecutionSpec) -> SandboxSpec:
        argv = toolbox.ARGV if _is_model(spec) else tuple(spec.command.argv)
        if _by_argument(spec.command):
            argv = (*argv, spec.command.prompt)
        shown = [*self._settings.read_only_paths, *(Path(os.fsdecode(path)) for path in spec.read_only_paths)]
        if _is_model(spec):
            shown.append(toolbox.PROGRAM)
        limits = self._limits(spec.limits)
        own = {
            EXECUTION_ID_VARIABLE: execution_id.encode(),
            **_told(self._bounds(spec), limits),
            **spec.environment,
            **spec.secrets,
        }
        network = self._network(spec)
        proxies = egress.ENVIRONMENT if network is Network.ALLOW_LIST else {}
        return SandboxSpec(
            argv=argv,
            cwd=WORKSPACE,
            mounts=(*(Mount(path) for path in shown), _workspace(spec.layout, execution_id)),
            environment=environment.base() | proxies | own,
            network=network,
            allow=self._allow(spec) if network is Network.ALLOW_LIST else AllowList(),
            limits=Limits(
                # Of each user namespace, and not where root starts it: the kernel's last resort, behind the runner's.
                processes=2 * (limits["processes"] or 0) + _SPARE_PROCESSES,
                open_files=limits["open_files"],
                file_size_bytes=limits["file_size_bytes"],
                scratch_bytes=self._settings.scratch_bytes,
            ),
            tier=self._tier(spec),
        )

    def _limits(self, limits: pb.ExecutionLimits) -> dict[_LimitName, int | None]:
        """What was asked for, and else what the settings say."""
        settings = self._settings
        default: dict[_LimitName, int] = {
            "memory_bytes": settings.memory_bytes,
            "processes": settings.processes,
            "workspace_bytes": settings.workspace_bytes,
        }
        return {name: getattr(limits, name) if limits.HasField(name) else default.get(name) for name in _LIMITS}

    def _bounds(self, spec: pb.ExecutionSpec) -> Bounds:
        limits, times = self._limits(spec.limits), spec.limits
        upper = spec.layout.layers.upper
        most = self._settings.max_output_bytes
        return Bounds(
            wall_timeout_s=wire.seconds(times.wall_timeout) if times.HasField("wall_timeout") else _DEFAULT_WALL_S,
            idle_timeout_s=wire.seconds(times.idle_timeout) if times.HasField("idle_timeout") else None,
            max_output_bytes=min(limits["output_bytes"] or most, most),
            memory_bytes=limits["memory_bytes"],
            processes=limits["processes"],
            cpu_seconds=limits["cpu_seconds"],
            workspace_bytes=limits["workspace_bytes"],
            workspace=os.fsdecode(upper or spec.layout.path),
            workspace_begins_empty=bool(upper),
        )


def _told(bounds: Bounds, limits: Mapping[_LimitName, int | None]) -> dict[str, bytes]:
    """What the program is told of its limits: BOATYARD_LIMIT_<NAME>, in bytes, seconds and pieces."""
    values: dict[str, float | None] = {
        **{str(name): value for name, value in limits.items()},
        "output_bytes": bounds.max_output_bytes,
        "wall_seconds": bounds.wall_timeout_s,
        "idle_seconds": bounds.idle_timeout_s,
    }
    return {f"BOATYARD_LIMIT_{name.upper()}": f"{value:.15g}".encode() for name, value in values.items() if value}


def _terminal(engine: pb.CommandEngine) -> TerminalSize | None:
    return TerminalSize(engine.terminal.rows, engine.terminal.columns) if engine.HasField("terminal") else None


def _by_argument(engine: pb.CommandEngine) -> bool:
    return engine.prompt_delivery == pb.CommandEngine.PROMPT_DELIVERY_ARGUMENT


def _layout_paths(layout: layout_pb2.Layout) -> list[tuple[str, bytes]]:
    if layout.WhichOneof("kind") == "path":
        return [("spec.layout.path", layout.path)]
    layers = layout.layers
    if not (layers.lowers and layers.upper and layers.work):
        return []
    mounted = [("spec.layout.layers.mounted_path", layers.mounted_path)] if layers.mounted_path else []
    lowers = [(f"spec.layout.layers.lowers[{i}]", path) for i, path in enumerate(layers.lowers)]
    return [*mounted, *lowers, ("spec.layout.layers.upper", layers.upper), ("spec.layout.layers.work", layers.work)]


def _workspace(layout: layout_pb2.Layout, execution_id: str) -> Mount | Overlay:
    if layout.WhichOneof("kind") == "path":
        return Mount(Path(os.fsdecode(layout.path)), WORKSPACE, Access.READ_WRITE)
    layers = layout.layers
    return Overlay(
        lowers=tuple(Path(os.fsdecode(path)) for path in layers.lowers),
        upper=Path(os.fsdecode(layers.upper)),
        work=Path(os.fsdecode(layers.work)),
        target=WORKSPACE,
        mounted=Path(os.fsdecode(layers.mounted_path)) if layers.mounted_path else None,
        holder=f"execution {execution_id}",
    )


def _is_model(spec: pb.ExecutionSpec) -> bool:
    return spec.WhichOneof("engine") == "anthropic"


def _task(engine: pb.AnthropicEngine) -> ModelTask:
    return ModelTask(
        model=engine.model,
        prompt=engine.prompt,
        system_prompt=engine.system_prompt,
        max_turns=engine.max_turns if engine.HasField("max_turns") else _DEFAULT_TURNS,
        max_tokens=engine.max_tokens if engine.HasField("max_tokens") else _DEFAULT_TOKENS,
        token_budget=engine.token_budget if engine.HasField("token_budget") else None,
        ask_before=tuple(engine.ask_before),
    )


def _engine_violations(spec: pb.ExecutionSpec) -> Violations:
    match spec.WhichOneof("engine"):
        case "command":
            return _command_violations(spec.command)
        case "anthropic":
            return _model_violations(spec.anthropic)
        case _:
            return [("spec.command", "is required, or spec.anthropic: no other engine is known here")]


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
        found += wire.size_violations("spec.command.terminal", engine.terminal)
        if engine.prompt and not _by_argument(engine):
            found.append(("spec.command.prompt_delivery", "must be ARGUMENT where standard input is a terminal"))
    if len(engine.prompt) > _PROMPT_BYTES:
        found.append(("spec.command.prompt", f"must be at most {_PROMPT_BYTES} bytes"))
    elif _by_argument(engine) and (b"\0" in engine.prompt or len(engine.prompt) > _ARGUMENT_BYTES):
        text = f"must be at most {_ARGUMENT_BYTES} bytes, and none of them NUL, to be an argument; use STDIN"
        found.append(("spec.command.prompt", text))
    return found


def _environment_violations(spec: pb.ExecutionSpec) -> Violations:
    entries = [*spec.environment.items(), *spec.secrets.items()]
    size = sum(len(name.encode()) + len(value) + 2 for name, value in entries)
    if len(entries) > _ENVIRONMENT_ENTRIES or size > _ENVIRONMENT_BYTES:
        text = f"must be at most {_ENVIRONMENT_ENTRIES} entries and {_ENVIRONMENT_BYTES} bytes"
        return [("spec.environment", text)]
    bad = [name for name, value in entries if not name or "=" in name or "\0" in name or b"\0" in value]
    found = [("spec.environment", f"{name!r} must not be empty, nor hold '=' or NUL") for name in bad]
    twice = spec.environment.keys() & spec.secrets.keys()
    found += [("spec.secrets", f"{name!r} stands in spec.environment as well") for name in sorted(twice)]
    for name, value in spec.secrets.items():
        if len(value.strip()) < SHORTEST or len(value) > LONGEST:
            text = f"{name!r} must have {SHORTEST} bytes at least, without space around them, and {LONGEST} at most"
            found.append(("spec.secrets", text))
    return found


def _limit_violations(limits: pb.ExecutionLimits) -> Violations:
    found: Violations = []
    for timeout in _TIMEOUTS:
        if limits.HasField(timeout) and not 0 < wire.seconds(getattr(limits, timeout)) <= _LONGEST_S:
            found.append((f"spec.limits.{timeout}", "must be more than 0 s, and at most 7 days"))
    for limit in _LIMITS:
        if limits.HasField(limit) and getattr(limits, limit) <= 0:
            found.append((f"spec.limits.{limit}", "must be more than 0"))
    return found
