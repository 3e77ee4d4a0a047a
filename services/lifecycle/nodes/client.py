"""The node services of a cell, and the clients with which one job calls them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from services.common.fence import Fence
from services.lifecycle.nodes.asks import AskClient
from services.lifecycle.nodes.calls import JobCalls
from services.lifecycle.nodes.executions import ExecutionClient
from services.lifecycle.nodes.git import GitClient
from services.lifecycle.nodes.retries import Pause, RetryLimits
from services.lifecycle.nodes.workspaces import WorkspaceClient


@dataclass(frozen=True, slots=True)
class JobNodes:
    """The node services, for one job. Refusals are raised as ServiceError, and NodeLost after the RetryLimits."""

    workspaces: WorkspaceClient
    git: GitClient
    executions: ExecutionClient
    asks: AskClient


@dataclass(frozen=True, slots=True)
class Nodes:
    """Channels to the cell's node services."""

    workspace: grpc.aio.Channel
    git: grpc.aio.Channel
    execution: grpc.aio.Channel
    retry_limits: RetryLimits = field(default_factory=RetryLimits)

    def for_job(
        self,
        fence: Fence,
        pause: Pause,
        check: Callable[[], None] = lambda: None,
        waits_for_room: Callable[[], bool] = lambda: False,
    ) -> JobNodes:
        """Return clients that send `fence`, wait between tries with `pause`, and call `check` before each try.

        Both may raise, so that a process that was frozen past the end of its lease does not simply continue. A full
        disk is waited for while `waits_for_room` says so.
        """
        calls = JobCalls(fence, self.retry_limits, pause, check, waits_for_room)
        return JobNodes(
            WorkspaceClient(self.workspace, calls),
            GitClient(self.git, calls),
            ExecutionClient(self.execution, calls),
            AskClient(self.execution, calls),
        )
