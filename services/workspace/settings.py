"""The settings of the workspace service."""

from typing import Annotated, Literal

from pydantic import Field

from services.common.settings import ServiceSettings


class WorkspaceSettings(ServiceSettings, env_prefix="BOATYARD_WORKSPACE_"):
    """Variables BOATYARD_WORKSPACE_<NAME>, and BOATYARD_HOME."""

    disk_reserve_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """What must stay free on the disk after a copy; otherwise creating fails with DISK_FULL."""
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    """How large one workspace may grow. Another is made only if all in use could grow to this size."""
    total_bytes: Annotated[int, Field(gt=0)] | None = None
    """How much all workspaces may use together; from there on creating fails with WORKSPACES_QUOTA."""
    driver: Literal["overlay", "overlay-userns", "reflink", "copy"] | None = None
    """How workspaces are made; by default the first in this order that works at the start."""
    concurrent_copies: Annotated[int, Field(ge=1, le=64)] = 4
    """How many copies run at once; others wait within their deadlines."""
    keep_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24 * 7
    """How long to keep workspaces that are no longer worked in, such as those of failed jobs."""
