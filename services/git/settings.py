"""What the git service can be told."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from services.common.settings import ListenAddress, ServiceSettings


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

    listen: ListenAddress = "127.0.0.1:7462"
    file_roots: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_roots)] = ()
    """Directories under which repositories on this machine may be used as remotes; none, unless given."""
    allow_loopback_http: bool = False
    """Whether plain http may be used for git servers on this machine."""
    allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    """Where git servers may be besides public addresses: `10.1.0.0/16,fd00::/8`; `0.0.0.0/0,::/0` is anywhere."""
    network_seconds: Annotated[float, Field(gt=0, le=86400)] = 1800
    """How long one fetch, clone or push may take."""
    lock_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    """How long to wait for another process that works on the same store."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """How much must be free on the disk before anything is fetched."""
    disk_budget_bytes: Annotated[int, Field(ge=0)] = 64 << 30
    """How much mirrors, bases and results may take together, before what was used least lately is evicted; 0: any."""
    base_grace_seconds: Annotated[float, Field(ge=0, le=7 * 86400)] = 3600
    """How long a base is left alone that was handed out, for whoever asked for it to make a workspace of it."""
    warm_seconds: Annotated[float, Field(ge=0, le=86400)] = 600
    """How often branches that jobs often start from, of remotes without a token, are brought up to date; 0: never."""
    snapshot_keep_hours: Annotated[float, Field(gt=0, le=24 * 3650)] = 720
    """How long a snapshot is kept whose maker did not say."""
    result_keep_hours: Annotated[float, Field(gt=0, le=24 * 3650)] = 720
    """How long a result is kept after it was taken; while the workspace is there that it was taken of, in any case."""
    max_result_bytes: Annotated[int, Field(gt=0)] = 2 * 1024 * 1024 * 1024
    """How large the packed objects of one result may be."""
