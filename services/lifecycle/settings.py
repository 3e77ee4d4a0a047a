"""The settings of every program that drives jobs: a gateway, and a coordinator."""

from typing import Annotated

from pydantic import AfterValidator, Field

from services.common.settings import NodeAddress, ServiceSettings
from services.lifecycle.model.outcome import RetentionPeriods
from services.lifecycle.webhooks import AllowList


def _checked(text: str) -> str:
    AllowList.parse(text)
    return text


Hours = Annotated[float, Field(ge=0, le=87600)]


class DriverSettings(ServiceSettings):
    """Where this machine's node services are, how long workspaces are kept, and which addresses webhooks may call."""

    workspace_address: NodeAddress | None = None
    """Where this machine's workspace service listens; by default at its socket in the data directory."""
    git_address: NodeAddress | None = None
    execution_address: NodeAddress | None = None
    node_patience_seconds: Annotated[float, Field(ge=0, le=86400)] = 300.0
    """How long to wait for a node service that is away; then the job that needs it ends with NODE_LOST."""
    keep_succeeded_hours: Hours = 24.0
    """How long to keep the workspace of a job that has succeeded, if its policy keeps it; 0 removes it at once."""
    keep_failed_hours: Hours = 72.0
    """The same for a job that has failed, or was taken over by another machine. Its content is kept as a snapshot."""
    keep_cancelled_hours: Hours = 24.0
    """The same for a job that was cancelled."""
    webhook_allow: Annotated[str, AfterValidator(_checked)] = ""
    """Addresses, networks and host names, separated by commas, that webhooks may call although they are not public."""

    @property
    def retention_periods(self) -> RetentionPeriods:
        """Return how long workspaces are kept."""
        hours = (self.keep_succeeded_hours, self.keep_failed_hours, self.keep_cancelled_hours)
        return RetentionPeriods(*(each * 3600 for each in hours))

    @property
    def webhooks_allowed(self) -> AllowList:
        """Return what webhooks may call although it is not public."""
        return AllowList.parse(self.webhook_allow)
