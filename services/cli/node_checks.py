"""What the node services of a running cell found out about this machine, for `boatyard doctor`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import takewhile

import grpc
from boatyard.execution.v1 import execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from services.cli import humanize
from services.cli.findings import OK, WARN, Finding
from services.common.rpc.channel import open_channel

_TIMEOUT_S = 5.0
_OPTIONAL = ("container",)
"""What few machines have, and most do without."""

Ask = Callable[[grpc.aio.Channel], Awaitable[list[Finding]]]


def node(addresses: dict[str, str], token: str) -> Iterator[Finding]:
    """Ask the services; one that does not answer is told of by another check."""
    yield from asyncio.run(_all(addresses, token))


async def _all(addresses: dict[str, str], token: str) -> list[Finding]:
    asked = [_asked(addresses[service], token, ask) for service, ask in _CHECKS.items()]
    return [finding for found in await asyncio.gather(*asked) for finding in found]


async def _asked(address: str, token: str, ask: Ask) -> list[Finding]:
    async with open_channel(address, token) as channel:
        try:
            return await ask(channel)
        except grpc.aio.AioRpcError:
            return []


async def _execution(channel: grpc.aio.Channel) -> list[Finding]:
    request = execution_pb2.DescribeNodeRequest()
    answer = await ExecutionServiceStub(channel).DescribeNode(request, timeout=_TIMEOUT_S)
    return [_capability(each) for each in answer.capabilities]


def _capability(each: execution_pb2.Capability) -> Finding:
    if not each.complaint:
        return Finding(f"agents: {each.name}", OK, f"by {each.provided_by}")
    how = f"by {each.provided_by}: " if each.provided_by else ""
    fine = each.provided_by or each.name in _OPTIONAL
    return Finding(f"agents: {each.name}", OK if fine else WARN, f"{how}{each.complaint}")


async def _workspace(channel: grpc.aio.Channel) -> list[Finding]:
    request = workspace_pb2.UsageOfWorkspacesRequest(page_size=1)
    usage = await WorkspaceServiceStub(channel).UsageOfWorkspaces(request, timeout=_TIMEOUT_S)
    better = takewhile(lambda driver: driver.name != usage.driver, usage.drivers)
    complaints = "; ".join(f"{driver.name}: {driver.complaint}" for driver in better)
    why = f" (not {complaints})" if complaints else ""
    free = f"{humanize.size(usage.total_bytes)} taken, {humanize.size(usage.free_bytes)} free"
    return [Finding("workspaces", OK, f"by {usage.driver}{why}; {free}")]


async def _git(channel: grpc.aio.Channel) -> list[Finding]:
    request = git_pb2.UsageOfRepositoriesRequest(page_size=1)
    usage = await GitServiceStub(channel).UsageOfRepositories(request, timeout=_TIMEOUT_S)
    of = f" of {humanize.size(usage.budget_bytes)}" if usage.budget_bytes else ", without a budget"
    return [Finding("repositories", OK, f"{humanize.size(usage.total_bytes)}{of}")]


_CHECKS: dict[str, Ask] = {"workspace": _workspace, "git": _git, "execution": _execution}
