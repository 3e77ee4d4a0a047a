"""What the workspace service can be told."""

from typing import Annotated, Literal

from pydantic import Field

from services.common.settings import ListenAddress, ServiceSettings


class WorkspaceSettings(ServiceSettings, env_prefix="BOATYARD_WORKSPACE_"):
    """Variables BOATYARD_WORKSPACE_<NAME>, and BOATYARD_HOME."""

    listen: ListenAddress = "127.0.0.1:7461"
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """What must be left free on the disk after a copy; creating refuses with DISK_FULL otherwise."""
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    """What one workspace may come to take. One more is made only where all in use could take as much."""
    total_bytes: Annotated[int, Field(gt=0)] | None = None
    """What all workspaces may take together; creating refuses with WORKSPACES_QUOTA from there on."""
    driver: Literal["overlay", "overlay-userns", "reflink", "copy"] | None = None
    """How workspaces are made; without it the best that is seen to work at the start, in this order."""
    concurrent_copies: Annotated[int, Field(ge=1, le=64)] = 4
    """Copies made at once; further ones wait within their deadline."""
    keep_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24 * 7
    """How long workspaces are kept that nobody works in any more, such as those of failed jobs."""
