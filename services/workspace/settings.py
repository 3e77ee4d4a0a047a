"""What the workspace service can be told."""

from typing import Annotated

from pydantic import Field

from services.common.settings import ListenAddress, ServiceSettings


class WorkspaceSettings(ServiceSettings, env_prefix="BOATYARD_WORKSPACE_"):
    """Variables BOATYARD_WORKSPACE_<NAME>, and BOATYARD_HOME."""

    listen: ListenAddress = "127.0.0.1:7461"
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """What must be left free on the disk after a copy; creating refuses with DISK_FULL otherwise."""
    concurrent_copies: Annotated[int, Field(ge=1, le=64)] = 4
    """Copies made at once; further ones wait within their deadline."""
    keep_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24 * 7
    """How long workspaces are kept that nobody works in any more, such as those of failed jobs."""
