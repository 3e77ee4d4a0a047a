"""A machine's own node services, connected."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
from boatyard.execution.v1 import execution_pb2
from boatyard.git.v1 import git_pb2
from boatyard.workspace.v1 import workspace_pb2
from google.protobuf.descriptor import ServiceDescriptor

from services.common.rpc.nodes import open_node_channel
from services.lifecycle.nodes.client import Nodes
from services.lifecycle.nodes.retries import RetryLimits
from services.lifecycle.settings import DriverSettings

_WORKSPACE: ServiceDescriptor = workspace_pb2.DESCRIPTOR.services_by_name["WorkspaceService"]
_GIT: ServiceDescriptor = git_pb2.DESCRIPTOR.services_by_name["GitService"]
_EXECUTION: ServiceDescriptor = execution_pb2.DESCRIPTOR.services_by_name["ExecutionService"]


@asynccontextmanager
async def connected(settings: DriverSettings) -> AsyncIterator[Nodes]:
    """Open channels to the three services, with the cell's own token."""
    home = settings.home
    home.directory("run")  # where their sockets are, or will be
    token = home.cell_token()
    async with AsyncExitStack() as stack:

        async def channel(address: str, service: ServiceDescriptor) -> grpc.aio.Channel:
            return await stack.enter_async_context(open_node_channel(home, address, token, services=[service]))

        yield Nodes(
            await channel(settings.workspace_address or home.socket("workspace"), _WORKSPACE),
            await channel(settings.git_address or home.socket("git"), _GIT),
            await channel(settings.execution_address or home.socket("execution"), _EXECUTION),
            RetryLimits(away=settings.node_patience_seconds),
        )
