"""Reads a StartExecutionRequest, the largest message and the one with the most that can be wrong.

`engines.wire` reads what runs, and `limits` how much it may use; this module reads where it runs, and makes the plan.
"""

from collections.abc import Callable
from pathlib import Path

from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1 import sandbox_pb2
from boatyard.workspace.v1 import layout_pb2

from services.common.text import path_from_text
from services.execution import egress
from services.execution.engines import wire as engines
from services.execution.engines.spec import EngineSpec
from services.execution.model import EXECUTION_ID_VARIABLE, Plan, Purpose, StartRequest
from services.execution.redaction.needles import SHORTEST
from services.execution.settings import ExecutionSettings
from services.execution.validation import Violations
from services.execution.wire import containers, limits, requests, responses
from services.sandbox import environment
from services.sandbox.host_patterns import HostPattern
from services.sandbox.spec import AllowList, Mount, MountAccess, Network, Overlay, SandboxSpec, Tier

_WORKSPACE = Path("/workspace")

_ENVIRONMENT_BYTES = 64 * 1024

_PURPOSES = {pb.ExecutionSpec.Purpose.Value(f"PURPOSE_{purpose}"): purpose for purpose in Purpose}
_TIERS = {number: tier for tier, number in responses.TIERS.items()}
_NETWORKS = {sandbox_pb2.Network.Value(f"NETWORK_{network.name}"): network for network in Network}


class StartReader:
    """Turns a caller's request into a plan, with defaults from the settings."""

    def __init__(self, settings: ExecutionSettings, guard: Callable[[Path], str | None]) -> None:
        """`guard` returns why a host path must not be shown to an agent, None when it may."""
        self._settings = settings
        self._guard = guard

    def read(self, request: pb.StartExecutionRequest) -> StartRequest:
        """Read what to start, when nothing is wrong with it. Raises FailedPrecondition (IMAGE_NOT_ALLOWED)."""
        spec = request.spec
        engine, engine_spec = engines.engine_from_proto(spec)
        return StartRequest(
            execution_id=request.execution_id,
            digest=requests.digest(spec),
            purpose=_PURPOSES[spec.purpose],
            job_id=spec.job_id,
            plan=Plan(
                request.execution_id,
                engine,
                self._sandbox(request.execution_id, spec, engine_spec),
                limits.bounds(spec, self._settings),
                engine_spec.task,
                tuple(sorted(spec.secrets)),
                engine_spec.terminal,
            ),
            stdin=engine_spec.stdin,
        )

    def check(self, request: pb.StartExecutionRequest) -> Violations:
        """Return what is wrong with a request as a whole, given the settings."""
        if not request.HasField("spec"):
            return []
        spec = request.spec
        problems = [*self._network_violations(spec), *self._path_violations(spec)]
        if self._tier(spec) is Tier.CONTAINER:
            problems += containers.violations(spec, self._network(spec))
        elif spec.image:
            problems.append(("spec.image", "must be empty unless the sandbox tier is CONTAINER"))
        problems += engines.violations(spec)
        problems += _environment_violations(spec)
        return problems

    def _network_violations(self, spec: pb.ExecutionSpec) -> Violations:
        hosts = spec.allowed_hosts
        if self._network(spec) is not Network.ALLOW_LIST:
            return [("spec.allowed_hosts", "must be empty unless the network is ALLOW_LIST")] if hosts else []
        if self._tier(spec) is Tier.NONE:
            return [("spec.network", "can be ALLOW_LIST only in a sandbox: nothing keeps tier NONE from the network")]
        problems: Violations = []
        for i, host in enumerate(hosts):
            try:
                HostPattern.parse(host)
            except ValueError as error:
                problems.append((f"spec.allowed_hosts[{i}]", str(error)))
        return problems

    def _network(self, spec: pb.ExecutionSpec) -> Network:
        return _NETWORKS.get(spec.network, self._settings.network)

    def _tier(self, spec: pb.ExecutionSpec) -> Tier:
        return _TIERS.get(spec.sandbox_tier, self._settings.sandbox_tier)

    def _allow(self, spec: pb.ExecutionSpec) -> AllowList:
        hosts = tuple(spec.allowed_hosts) or self._settings.network_allowed_hosts
        return AllowList(hosts, tuple(map(str, self._settings.network_allowed_addresses)))

    def _path_violations(self, spec: pb.ExecutionSpec) -> Violations:
        paths = [*_layout_paths(spec.layout)]
        paths += [(f"spec.read_only_paths[{i}]", path) for i, path in enumerate(spec.read_only_paths)]
        return [
            (field, complaint)
            for field, path in paths
            if path.startswith("/") and "\0" not in path and (complaint := self._guard(path_from_text(path)))
        ]

    def _sandbox(self, execution_id: str, spec: pb.ExecutionSpec, engine: EngineSpec) -> SandboxSpec:
        visible_paths = [*self._settings.read_only_paths, *map(path_from_text, spec.read_only_paths)]
        visible_paths += engine.read_only_paths
        variables = {
            EXECUTION_ID_VARIABLE: execution_id.encode(),
            **limits.limit_variables(spec, self._settings),
            **{name: value.encode() for name, value in (*spec.environment.items(), *spec.secrets.items())},
        }
        bounds = limits.bounds(spec, self._settings)
        network, tier = self._network(spec), self._tier(spec)
        is_contained = tier is Tier.CONTAINER
        proxies = egress.ENVIRONMENT if network is Network.ALLOW_LIST else {}
        return SandboxSpec(
            argv=(engine.container_argv or engine.argv) if is_contained else engine.argv,
            cwd=_WORKSPACE,
            mounts=(*(Mount(path) for path in visible_paths), _workspace(spec.layout, execution_id)),
            environment=environment.base() | proxies | variables,
            network=network,
            allow=self._allow(spec) if network is Network.ALLOW_LIST else AllowList(),
            limits=limits.sandbox_limits(spec, self._settings),
            tier=tier,
            container=containers.container(spec, bounds, self._settings) if is_contained else None,
        )


def _layout_paths(layout: layout_pb2.Layout) -> list[tuple[str, str]]:
    if layout.WhichOneof("kind") == "path":
        return [("spec.layout.path", layout.path)]
    layers = layout.layers
    mounted = [("spec.layout.layers.mounted_path", layers.mounted_path)] if layers.mounted_path else []
    lowers = [(f"spec.layout.layers.lowers[{i}]", path) for i, path in enumerate(layers.lowers)]
    return [*mounted, *lowers, ("spec.layout.layers.upper", layers.upper), ("spec.layout.layers.work", layers.work)]


def _workspace(layout: layout_pb2.Layout, execution_id: str) -> Mount | Overlay:
    if layout.WhichOneof("kind") == "path":
        return Mount(path_from_text(layout.path), _WORKSPACE, MountAccess.READ_WRITE)
    layers = layout.layers
    return Overlay(
        lowers=tuple(map(path_from_text, layers.lowers)),
        upper=path_from_text(layers.upper),
        work=path_from_text(layers.work),
        target=_WORKSPACE,
        mounted=path_from_text(layers.mounted_path) if layers.mounted_path else None,
        holder=f"execution {execution_id}",
    )


def _environment_violations(spec: pb.ExecutionSpec) -> Violations:
    entries = [*spec.environment.items(), *spec.secrets.items()]
    problems: Violations = []
    if sum(len(name.encode()) + len(value.encode()) + 2 for name, value in entries) > _ENVIRONMENT_BYTES:
        problems.append(("spec.environment", f"must be at most {_ENVIRONMENT_BYTES >> 10} KiB with spec.secrets"))
    duplicates = spec.environment.keys() & spec.secrets.keys()
    problems += [("spec.secrets", f"{name!r} is also in spec.environment") for name in sorted(duplicates)]
    for name, secret in spec.secrets.items():
        if len(secret.encode().strip()) < SHORTEST:
            problems.append(
                (f'spec.secrets["{name}"]', f"must be at least {SHORTEST} bytes without the space around them")
            )
    return problems
