"""The spec of a sandbox: what a process may see and use, as plain values."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Tier(enum.StrEnum):
    """How strongly a process is isolated from the host."""

    BUBBLEWRAP = "bubblewrap"
    CONTAINER = "container"
    """In a container of an engine, made from an image: see `container`."""
    NONE = "none"


class Network(enum.StrEnum):
    """Which part of the network a process can reach.

    It always has a network namespace of its own, without any interface but its loopback; whoever spawns it provides the
    way out. Only in tier NONE it has the host's.
    """

    NONE = "none"
    ALLOW_LIST = "allow_list"
    """Some hosts, through a proxy of ours."""
    OPEN = "open"
    """All public addresses, through the same proxy."""


class MountAccess(enum.StrEnum):
    """The access to a mounted path."""

    READ_ONLY = "ro"
    READ_WRITE = "rw"


@dataclass(frozen=True, slots=True)
class Mount:
    """One host path as the process sees it. `target` defaults to the same path.

    With an open `descriptor` of the source, that is mounted, whatever lies at the path by then (bubblewrap alone).
    """

    source: Path
    target: Path | None = None
    access: MountAccess = MountAccess.READ_ONLY
    descriptor: int | None = None


@dataclass(frozen=True, slots=True)
class Overlay:
    """Directories stacked into one at `target`: `lowers` are read, the topmost first, and `upper` takes the changes.

    `work` is on the same file system as `upper`. Without these two the stack is read-only. `mounted` is where the host
    has mounted them already: it is bound, and other sandboxes may share it. Otherwise the sandbox mounts them for
    itself, exclusively. `holder` describes the sandbox to others that want the layers, such as `execution e1`.
    """

    lowers: tuple[Path, ...]
    upper: Path | None
    work: Path | None
    target: Path
    mounted: Path | None = None
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one sandboxed process tree; None leaves the host's.

    `address_space_bytes`, `data_bytes` (memory of its own, without mapped files), `open_files`, `cpu_seconds` and
    `file_size_bytes` hold for each process, `processes` for all processes and threads of the tree (the kernel exempts
    a sandbox that has root's uid), `scratch_bytes` for /tmp and for HOME in memory, each.
    """

    address_space_bytes: int | None = None
    data_bytes: int | None = None
    processes: int | None = None
    open_files: int | None = None
    cpu_seconds: int | None = None
    file_size_bytes: int | None = None
    scratch_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class AllowList:
    """What a network lets through.

    `hosts` are patterns as in `host_patterns.HostPattern`; Network.OPEN has none, and lets every host through.
    `addresses` are networks, such as 10.0.0.0/8, that may be reached although they are not public; with
    Network.ALLOW_LIST hosts must be named all the same.
    """

    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """What a container is made from, and by which engine: `podman`, `docker`, or (None) the first that answers.

    A missing image is pulled if it `may_pull`. Memory (in bytes) and processes (with threads) are for the whole
    container, if the engine can limit them.
    """

    image: str
    engine: str | None = None
    may_pull: bool = False
    memory_bytes: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A process, and everything that it may see and use.

    `environment` is complete: nothing of the host's environment is added to it, and it is passed by pipe, never in
    argv; `environment.base` returns what every program expects. `mounts` come on top of a read-only system (/usr, the
    running interpreter), a private /tmp and HOME. HOME is in memory, and gone afterwards, unless `home` is a directory
    of the host's for it. `cwd` is a path inside. With tier NONE mounts do nothing, except that a `cwd` below a mount's
    target is looked up in its source. With tier CONTAINER the system is that of the image of `container`.
    """

    argv: tuple[bytes, ...]
    cwd: Path
    mounts: tuple[Mount | Overlay, ...] = ()
    environment: Mapping[str, bytes] = field(default_factory=dict)
    network: Network = Network.NONE
    allow: AllowList = AllowList()
    limits: Limits = Limits()
    tier: Tier = Tier.BUBBLEWRAP
    container: Container | None = None
    home: Path | None = None
