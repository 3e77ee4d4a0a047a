"""Reads a StartExecutionRequest, the largest message and the one with the most that can be wrong.

An engine reads what runs, and `limits` how much it may use; this module reads where it runs, and makes the plan.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.workspace.v1 import layout_pb2

from services.agent.limits import Limits, lowered
from services.agent.providers import replayed_providers
from services.agent.settings import AgentSettings, secret_complaints
from services.agent.wire import AGENT, PROVIDER, REPLAY_MATCHINGS, recording_complaint
from services.common.errors import FailedPrecondition
from services.common.rpc.rules import Violation
from services.common.text import path_from_text
from services.execution import egress
from services.execution.engine import EngineSpec, load
from services.execution.model import EXECUTION_ID_VARIABLE, Plan, Purpose, StartRequest
from services.execution.presets.presets import Presets
from services.execution.settings import ExecutionSettings
from services.execution.wire import containers, git_identity, home_files, limits, requests, secret_files
from services.sandbox import environment
from services.sandbox.spec import AllowList, Mount, MountAccess, Network, Overlay, SandboxSpec, Tier

_WORKSPACE = Path("/workspace")

_ENVIRONMENT_BYTES = 64 * 1024

_PURPOSES = {pb.ExecutionSpec.Purpose.Value(f"PURPOSE_{purpose}"): purpose for purpose in Purpose}


class StartReader:
    """Turns a caller's request into a plan, with defaults from the settings."""

    def __init__(self, settings: ExecutionSettings, guard: Callable[[Path], str | None], presets: Presets) -> None:
        """`guard` returns why a host path must not be shown to an agent, None when it may."""
        self._settings = settings
        self._guard = guard
        self._presets = presets

    def read(self, request: pb.StartExecutionRequest) -> StartRequest:
        """Read what to start, when nothing is wrong with it.

        Raises FailedPrecondition (IMAGE_NOT_ALLOWED; SANDBOX_UNAVAILABLE when a path of the settings is not there).
        """
        spec = request.spec
        if missing := self._settings.missing_paths():
            raise FailedPrecondition("SANDBOX_UNAVAILABLE", missing, request.execution_id)
        agent = self._agent(spec)
        engine, is_replayed = load(agent.chosen_engine.name), spec.HasField("replay")
        engine_spec = engine.spec(agent, agent.chosen_engine, spec.prompt, self._presets)
        return StartRequest(
            execution_id=request.execution_id,
            digest=requests.digest(spec),
            purpose=_PURPOSES[spec.purpose],
            job_id=spec.job_id,
            plan=Plan(
                request.execution_id,
                agent.chosen_engine.name,
                self._sandbox(request.execution_id, spec, agent, engine_spec),
                limits.bounds(agent, spec.layout, spec.home_path, self._settings),
                engine_spec.task,
                tuple(sorted({*agent.secrets, *spec.secrets})),
                engine_spec.terminal,
                _encoded(spec.redacted),
                has_door=engine.uses_door and (bool(spec.providers) or is_replayed),
                records=bool(agent.record),
                replay=REPLAY_MATCHINGS[spec.replay.matching] if is_replayed else None,
                reserves_model_use=spec.reserves_model_use and not is_replayed,
                heeds_model_gates=spec.heeds_model_gates and not is_replayed,
            ),
            stdin=engine_spec.stdin,
            providers=replayed_providers() if is_replayed else tuple(map(PROVIDER.from_proto, spec.providers)),
            recording=spec.replay.recording,
            needs_door=bool(agent.providers) or is_replayed,
            asked=Limits.of(self._asked(spec)),
            leave_out=engine_spec.leave_out,
            missing_agent=engine_spec.missing,
            converses=engine_spec.converses,
            resumes=spec.resumes,
        )

    def check(self, request: pb.StartExecutionRequest) -> list[Violation]:
        """Return what is wrong with a request as a whole, given the settings."""
        if not request.HasField("spec"):
            return []
        spec = request.spec
        problems = [*self._path_violations(spec), *_environment_violations(spec)]
        if spec.HasField("replay") and (complaint := recording_complaint(spec.replay)):
            problems.append(("spec.replay.recording", complaint))
        try:
            agent = self._agent(spec)
        except (KeyError, OverflowError):  # a choice or a time span that is against a rule of the contract
            return problems
        problems += _network_violations(agent)
        if agent.tier is Tier.CONTAINER:
            problems += containers.violations(spec)
        elif agent.image:
            problems.append(("spec.agent.image", "must be empty unless the sandbox tier is CONTAINER"))
        problems += load(agent.chosen_engine.name).violations(agent, agent.chosen_engine, spec.prompt)
        return problems

    def _agent(self, spec: pb.ExecutionSpec) -> AgentSettings:
        return limits.complete(self._asked(spec), self._settings)

    def _asked(self, spec: pb.ExecutionSpec) -> AgentSettings:
        """Return the settings that were asked for. Of checks and hooks, which go with the agent, limits are lowered."""
        asked = AGENT.from_proto(spec.agent)
        is_agent = spec.purpose == pb.ExecutionSpec.PURPOSE_AGENT
        return asked if is_agent else lowered(asked, self._settings.limits)

    def _allow(self, agent: AgentSettings) -> AllowList:
        addresses = tuple(map(str, self._settings.network_allowed_addresses))
        if agent.network is Network.OPEN:
            return AllowList(addresses=addresses)
        return AllowList(agent.allowed_hosts or self._settings.network_allowed_hosts, addresses)

    def _path_violations(self, spec: pb.ExecutionSpec) -> list[Violation]:
        paths = [*_layout_paths(spec.layout)]
        paths += [("spec.home_path", spec.home_path)] if spec.home_path else []
        paths += [(f"spec.read_only_paths[{i}]", path) for i, path in enumerate(spec.read_only_paths)]
        return [
            (field, complaint)
            for field, path in paths
            if path.startswith("/") and "\0" not in path and (complaint := self._guard(path_from_text(path)))
        ]

    def _sandbox(
        self, execution_id: str, spec: pb.ExecutionSpec, agent: AgentSettings, engine: EngineSpec
    ) -> SandboxSpec:
        visible_paths = [*self._settings.read_only_paths, *map(path_from_text, spec.read_only_paths)]
        visible_paths += engine.read_only_paths
        network, is_contained = agent.network or Network.NONE, agent.tier is Tier.CONTAINER
        proxies = egress.ENVIRONMENT if network is Network.ALLOW_LIST else {}
        variables = {
            EXECUTION_ID_VARIABLE: execution_id.encode(),
            **limits.limit_variables(agent),
            **_encoded(agent.environment),
            **engine.environment,
            **_encoded(spec.environment),
            **_encoded(agent.secrets),
            **_encoded(spec.secrets),
        }
        argv = (engine.container_argv or engine.argv) if is_contained else engine.argv
        if agent.secrets and agent.tier is not Tier.NONE:
            argv = secret_files.before(argv, agent.secrets)
            variables[environment.SECRETS_VARIABLE] = bytes(environment.SECRETS)
        if "HOME" not in variables:  # otherwise it is somebody's own
            argv = home_files.before(
                argv, {**git_identity.files({**agent.environment, **spec.environment}), **engine.home}
            )
        base = environment.base()
        if "PATH" not in variables and engine.path:
            base["PATH"] = b":".join([base["PATH"], *map(bytes, engine.path)])
        return SandboxSpec(
            argv=argv,
            cwd=_WORKSPACE,
            mounts=(*(Mount(path) for path in visible_paths), _workspace(spec.layout, execution_id)),
            environment=base | proxies | variables,
            network=network,
            allow=AllowList() if network is Network.NONE else self._allow(agent),
            limits=limits.sandbox_limits(agent),
            tier=agent.tier,
            container=containers.container(agent, self._settings) if is_contained else None,
            home=path_from_text(spec.home_path) if spec.home_path else None,
        )


def _encoded(variables: Mapping[str, str]) -> dict[str, bytes]:
    return {name: value.encode() for name, value in variables.items()}


def _network_violations(agent: AgentSettings) -> list[Violation]:
    if agent.network is not Network.ALLOW_LIST:
        rule = "must be empty unless the network is ALLOW_LIST"
        return [("spec.agent.allowed_hosts", rule)] if agent.allowed_hosts else []
    if agent.tier is Tier.NONE:
        rule = "can be ALLOW_LIST only in a sandbox: nothing keeps tier NONE from the network"
        return [("spec.agent.network", rule)]
    return []


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


def _environment_violations(spec: pb.ExecutionSpec) -> list[Violation]:
    given = {"agent.secrets": spec.agent.secrets, "secrets": spec.secrets, "redacted": spec.redacted}
    entries = [*spec.agent.environment.items(), *spec.environment.items()]
    entries += [*spec.agent.secrets.items(), *spec.secrets.items()]
    problems: list[Violation] = []
    if sum(len(name.encode()) + len(value.encode()) + 2 for name, value in entries) > _ENVIRONMENT_BYTES:
        problems.append(
            ("spec.environment", f"must be at most {_ENVIRONMENT_BYTES >> 10} KiB with all other variables")
        )
    duplicates = {*spec.environment, *spec.agent.environment} & spec.secrets.keys()
    problems += [("spec.secrets", f"{name!r} is also in spec.environment") for name in sorted(duplicates)]
    for field, secrets in given.items():
        problems += [(f'spec.{field}["{name}"]', complaint) for name, complaint in secret_complaints(secrets)]
    return problems
