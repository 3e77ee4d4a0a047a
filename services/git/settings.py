"""The git service's settings."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from services.common.settings import ServiceSettings


def _roots(value: object) -> object:
    if not isinstance(value, str):
        return value
    roots = [Path(root) for root in value.split(os.pathsep) if root]
    if any(not root.is_absolute() for root in roots):
        raise ValueError(f"must be absolute paths, separated by {os.pathsep!r}")
    return roots


def _networks(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class GitSettings(ServiceSettings, env_prefix="BOATYARD_GIT_"):
    """Variables BOATYARD_GIT_<NAME>, and BOATYARD_HOME."""

    file_roots: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_roots)] = ()
    """Directories under which this service's own user's repositories may be remotes; none by default."""
    others_file_roots: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_roots)] = ()
    """Directories under which repositories of any user may be remotes."""
    sandbox_file_remotes: bool = True
    """False serves remotes on this machine, our own user's alone, where there is no sandbox to serve them in."""
    allow_loopback_http: bool = False
    """True allows plain http for git servers on this machine."""
    allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    """Where git servers may be, besides public addresses: `10.1.0.0/16,fd00::/8`; `0.0.0.0/0,::/0` is anywhere."""
    ca: Path | None = None
    """A file of certificates (PEM) of CAs that vouch for git servers, besides those that the machine trusts."""
    ssh_identity: bool = False
    """True lends remotes over ssh that have no key of their own those of the account that runs the cell."""
    network_seconds: Annotated[float, Field(gt=0, le=86400)] = 1800
    """How long one fetch, clone or push may take."""
    silence_seconds: Annotated[float, Field(gt=0, le=3600)] = 50
    """After how long in which nothing comes from a git server, or goes to it, it counts as gone."""
    fetch_max_bytes: Annotated[int, Field(ge=1 << 20)] = 16 << 30
    """How much one fetch or clone may bring. A remote that sends more is refused, and what it sent is removed."""
    fetch_memory_bytes: Annotated[int, Field(ge=64 << 20)] = 4 << 30
    """How much memory each process of a fetch, clone or push may take; a remote's words decide what it needs."""
    max_submodules: Annotated[int, Field(ge=0, le=1000)] = 100
    """How many submodules of one commit are checked out, nested ones too; 0: none."""
    submodules_max_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    """How much the repositories of all submodules of one commit may take together."""
    lfs_max_bytes: Annotated[int, Field(ge=0)] = 4 << 30
    """How much the files of one commit that are in Git LFS may have together; the others stay pointers. 0: all do."""
    max_refs: Annotated[int, Field(ge=1)] = 10_000
    """Of a remote with more branches and tags than this, only those are fetched that somebody asks for."""
    lock_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    """How long to wait for another process that is working on the same store."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """How much must be free on the disk before anything is fetched."""
    disk_budget_bytes: Annotated[int, Field(ge=0)] = 64 << 30
    """How much mirrors, bases and results may take together; beyond it the least recently used go. 0: no limit."""
    base_grace_seconds: Annotated[float, Field(ge=0, le=7 * 86400)] = 3600
    """How long a base is protected from eviction after it was handed out, so that a workspace can be made from it."""
    warm_seconds: Annotated[float, Field(ge=0, le=86400)] = 600
    """How often the branches that jobs often start from are fetched ahead, of remotes without a token; 0: never."""
    snapshot_keep_hours: Annotated[float, Field(gt=0, le=24 * 3650)] = 720
    """How long a snapshot is kept when its maker did not say."""
    result_keep_hours: Annotated[float, Field(gt=0, le=24 * 3650)] = 720
    """How long a result is kept after it was taken. It is always kept while the workspace that it came from exists."""
    take_max_bytes: Annotated[int, Field(ge=1 << 20)] = 32 << 30
    """How much may be in the files that an agent has changed, ignored ones too, as programs see their sizes."""
    take_max_files: Annotated[int, Field(ge=1)] = 2_000_000
    """How many files and directories an agent may leave, ignored ones too."""
    max_artifacts: Annotated[int, Field(ge=1, le=1000)] = 1000
    """How many files are kept as artifacts of one execution."""
    max_artifact_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """How much the artifacts of one execution may have together."""
    max_result_bytes: Annotated[int, Field(gt=0)] = 2 * 1024 * 1024 * 1024
    """The largest allowed size of one result's packed objects."""
