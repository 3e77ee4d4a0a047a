"""The execution service's settings."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from services.agent.allowance import DEFAULT_NETWORKS, DEFAULT_TIERS, NETWORKS_SETTING, TIERS_SETTING, Allowance
from services.agent.images import ContainerImages
from services.agent.limits import NO_LIMITS, Limits
from services.common.settings import ServiceSettings
from services.execution.presets.tools import ToolPaths
from services.sandbox.host_patterns import HostPattern
from services.sandbox.spec import Network, Tier

PATHS_SETTING: Final = "BOATYARD_EXECUTION_READ_ONLY_PATHS"
PRESETS_SETTING: Final = "BOATYARD_EXECUTION_PRESETS"
"""Names of settings, for messages."""


def _paths(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _entries(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _choices(value: object) -> object:
    entries = _entries(value)
    return [entry.lower().replace("-", "_") for entry in entries] if isinstance(entries, list) else entries


def _limits(value: object) -> object:
    return Limits.parse(value) if isinstance(value, str) else value


def _patterns(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        HostPattern.parse(host)
    return hosts


class ExecutionSettings(ServiceSettings, env_prefix="BOATYARD_EXECUTION_"):
    """Variables BOATYARD_EXECUTION_<NAME>, and BOATYARD_HOME."""

    max_executions: Annotated[int, Field(ge=1, le=1000)] = 16
    """How many executions may be active at once; further ones are refused with TOO_MANY_EXECUTIONS."""
    sandbox_tier: Tier = Tier.BUBBLEWRAP
    """The tier of executions that name none; it must be allowed."""
    allowed_tiers: Annotated[tuple[Tier, ...], NoDecode, BeforeValidator(_choices)] = DEFAULT_TIERS
    """The tiers that executions may have; separated by commas. With `none` they have all rights of this service."""
    container_engine: Literal["podman", "docker"] | None = None
    """What makes containers; None: the first of the two that answers."""
    container_image: str = ""
    """The image of executions with tier `container` that name none."""
    container_images: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_entries)] = ()
    """Further images that executions may name, as patterns with `*` and `?`; separated by commas."""
    container_pull: Literal["never", "missing"] = "never"
    """Whether a missing image is fetched."""
    network: Network = Network.NONE
    """What executions can reach of the network when they do not say; it must be allowed."""
    allowed_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_choices)] = DEFAULT_NETWORKS
    """The networks that executions may have; separated by commas. With `open` they reach every public address."""
    network_allowed_hosts: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_entries), AfterValidator(_patterns)
    ] = ()
    """Hosts that executions with network `allow_list` can reach when they name none; separated by commas."""
    network_allowed_addresses: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_entries)
    ] = ()
    """Networks (10.1.0.0/16, 192.0.2.7) that are reached without being public, or near; separated by commas."""
    limits: Annotated[Limits, NoDecode, BeforeValidator(_limits)] = NO_LIMITS
    """The most that executions may ask for, as `timeout=7200,memory_bytes=8589934592`: see `services.agent.limits`."""
    read_only_paths: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = ()
    """Absolute paths that every sandbox sees, such as where an agent's program is installed; separated by colons."""
    agent_paths: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = ()
    """Absolute paths of directories with agents' programs, which agents by a preset see; separated by colons."""
    presets: Path | None = None
    """A directory with presets of agents, NAME.toml, beside ours and in place of those of ours with the same name."""
    max_output_bytes: Annotated[int, Field(ge=1)] = 4 << 30
    """How much one execution may write to standard output and error before it is ended with OUTPUT_LIMIT."""
    scratch_bytes: Annotated[int, Field(ge=1 << 20)] = 2 << 30
    """The size of each of a sandbox's /tmp, /dev/shm and HOME in memory, and the most that one may ask for."""
    memory_bytes: Annotated[int, Field(ge=1 << 24)] = 8 << 30
    """Memory for all processes of an execution that names no limit of its own."""
    processes: Annotated[int, Field(ge=1)] = 4096
    """Processes and threads for an execution that names no limit of its own."""
    workspace_bytes: Annotated[int, Field(ge=1)] = 20 << 30
    """How much the workspace of an execution that names no limit of its own may grow."""
    control_groups: bool = True
    """Whether to make control groups where that is possible; without them limits are sampled."""
    memory_reserve_bytes: Annotated[int, Field(ge=0)] = 256 << 20
    """Memory that must be free, on the machine and in the service's own control group, for one more execution."""
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = 256 << 20
    """Disk space that must be free in the data directory for one more execution; events leave half of it free."""
    max_load: Annotated[float, Field(gt=0)] | None = None
    """How many processes may wait for each processor, in the mean of a minute, for one more execution."""
    pack_after_hours: Annotated[float, Field(ge=0)] = 1.0
    """How long the events of an ended execution stay as they are before they are packed, which slows reading down."""
    keep_days: Annotated[float, Field(gt=0)] = 30.0
    """How long the events of an ended execution are kept; its record stays."""
    keep_bytes: Annotated[int, Field(ge=1)] = 20 << 30
    """Disk space for the events of ended executions; when it is full, those that ended first lose theirs first."""
    model_patience_seconds: Annotated[float, Field(ge=0, le=3600)] = 120.0
    """How long an agent waits for its model, whose provider does not answer, before it is ended, MODEL_UNAVAILABLE; 10
    seconds at most for one that was never reached."""
    model_first_byte_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """How long a provider of models may say nothing to a request before its stream begins; an answer that comes as a
    whole has five times as long. Then it counts as one that does not answer."""
    sweep_seconds: Annotated[float, Field(gt=0)] = 600.0
    """How often to look for old events."""

    @property
    def allowance(self) -> Allowance:
        """The tiers, networks and limits that executions may have."""
        return Allowance.of(self.allowed_tiers, self.allowed_networks, self.limits)

    @property
    def images(self) -> ContainerImages:
        """The images that containers may be made from."""
        return ContainerImages(self.container_image, self.container_images)

    @property
    def tools(self) -> ToolPaths:
        """Where the programs of agents are."""
        return ToolPaths(self.agent_paths, self.read_only_paths)

    def missing_paths(self) -> str:
        """Return what is wrong with `read_only_paths`: those that are not there, or an empty string."""
        missing = [str(path) for path in self.read_only_paths if not path.is_absolute() or not path.exists()]
        if not missing:
            return ""
        return (
            f"{PATHS_SETTING} names {', '.join(missing)}, and no sandbox is made without that: make it, or leave it out"
        )

    @model_validator(mode="after")
    def _check_defaults(self) -> "ExecutionSettings":
        if self.sandbox_tier not in self.allowance.tiers:
            raise ValueError(f"{TIERS_SETTING} must have {self.sandbox_tier}, which is the default tier")
        if self.network not in self.allowance.networks:
            raise ValueError(f"{NETWORKS_SETTING} must have {self.network}, which is the default network")
        return self
