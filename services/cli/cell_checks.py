"""What a running cell knows of this machine and of its database, for `boatyard doctor`."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import takewhile

import grpc
from boatyard.execution.v1 import execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.gateway.v1 import admin_pb2
from boatyard.git.v1 import git_pb2
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import workspace_pb2
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from services.cli import humanize, shapes
from services.cli.clients import with_gateway
from services.cli.exit_codes import NotAllowedError
from services.cli.findings import FAIL, OK, WARN, Finding
from services.common.errors import ServiceError
from services.common.home import Home
from services.common.rpc.nodes import open_node_channel
from services.common.untrusted_json import parse_json
from services.sandbox import host_uids

_TIMEOUT_S = 5.0
_CHECK_TIMEOUT_S = 30.0
_DATABASE_FIX = (
    "bring all cells of this database to the same version of Boatyard, or restore an earlier copy of the database"
)
_OPTIONAL = ("container",)
"""Capabilities that most machines do not need."""
_DANGERS = {
    ("--sandbox", "none"): "gives agents all rights of the account that runs Boatyard",
    ("--network", "open"): "lets agents send what they read to anybody",
}

Ask = Callable[[grpc.aio.Channel], Awaitable[list[Finding]]]


def nodes(home: Home, addresses: dict[str, str], token: str) -> Iterator[Finding]:
    """Ask the services. Another check reports those that do not answer."""
    yield from asyncio.run(_all(home, addresses, token))


async def _all(home: Home, addresses: dict[str, str], token: str) -> list[Finding]:
    calls = [_ask(home, addresses[service], token, ask) for service, ask in _CHECKS.items()]
    return [finding for findings in await asyncio.gather(*calls) for finding in findings]


async def _ask(home: Home, address: str, token: str, ask: Ask) -> list[Finding]:
    async with open_node_channel(home, address, token) as channel:
        try:
            return await ask(channel)
        except grpc.aio.AioRpcError:
            return []


async def _execution(channel: grpc.aio.Channel) -> list[Finding]:
    request = execution_pb2.DescribeNodeRequest()
    answer = await ExecutionServiceStub(channel).DescribeNode(request, timeout=_TIMEOUT_S)
    return [*map(_capability, answer.capabilities), _choices(answer)]


def _capability(each: execution_pb2.Capability) -> Finding:
    if not each.complaint:
        return Finding(f"agents: {each.name}", OK, f"by {each.provided_by}")
    if each.provided_by:
        return Finding(f"agents: {each.name}", OK, f"by {each.provided_by}: {each.complaint}")
    if each.name in _OPTIONAL:
        return Finding(f"agents: {each.name}", OK, f"only needed for --sandbox {each.name}: {each.complaint}")
    return Finding(f"agents: {each.name}", WARN, each.complaint)


def _choices(answer: execution_pb2.DescribeNodeResponse) -> Finding:
    tiers, networks = shapes.tiers(answer.allowed_tiers), shapes.networks(answer.allowed_networks)
    chosen = {*(("--sandbox", tier) for tier in tiers), *(("--network", network) for network in networks)}
    dangers = [f"{option} {choice} {what}" for (option, choice), what in _DANGERS.items() if (option, choice) in chosen]
    return Finding("agents: may choose", WARN if dangers else OK, "; ".join([shapes.choices(answer), *dangers]))


async def _workspace(channel: grpc.aio.Channel) -> list[Finding]:
    request = workspace_pb2.ListWorkspaceUsageRequest(page_size=1)
    usage = await WorkspaceServiceStub(channel).ListWorkspaceUsage(request, timeout=_TIMEOUT_S)
    better = takewhile(lambda driver: driver.name != usage.driver, usage.drivers)
    complaints = "; ".join(f"{driver.name}: {driver.complaint}" for driver in better)
    why = f" (not {complaints})" if complaints else ""
    space = f"{humanize.size(usage.total_bytes)} used, {humanize.size(usage.free_bytes)} free"
    uids = f"with the service's uid: {usage.shared_uid_reason}" if usage.shared_uid_reason else "each with its own uid"
    is_root = usage.shared_uid_reason not in {"", host_uids.NOT_ROOT}  # then an agent is root to many files
    mend = "have `boatyard up` run by a user of its own, or use the driver that is named" if is_root else ""
    return [Finding("workspaces", WARN if is_root else OK, f"by {usage.driver}{why}, {uids}; {space}", mend)]


async def _git(channel: grpc.aio.Channel) -> list[Finding]:
    request = git_pb2.ListRepositoryUsageRequest(page_size=1)
    usage = await GitServiceStub(channel).ListRepositoryUsage(request, timeout=_TIMEOUT_S)
    budget = f" of {humanize.size(usage.budget_bytes)}" if usage.budget_bytes else ", no limit"
    return [Finding("repositories", OK, f"{humanize.size(usage.total_bytes)}{budget}")]


_CHECKS: dict[str, Ask] = {"workspace": _workspace, "git": _git, "execution": _execution}


def database() -> Iterator[Finding]:
    """Ask the gateway. Another check reports a gateway that does not answer or refuses us."""
    try:
        request = admin_pb2.CheckDatabaseRequest()
        state = with_gateway(lambda gateway: gateway.ask(gateway.admin.CheckDatabase(request, timeout=_TIMEOUT_S)))
    except (ServiceError, NotAllowedError):
        return
    latency_ms = state.latency.ToTimedelta().total_seconds() * 1000
    server = f"{state.kind} {state.server_version}"
    yield _database(server, state.schema_version, list(state.schema_faults), latency_ms)


def database_without_gateway(url: str | None) -> Finding:
    """Check a database as a gateway would, in a process of its own; without `url` the one of this environment."""
    program = [sys.executable, "-P", "-m", "services.gateway.cells.database_check"]
    environment = os.environ | ({} if url is None else {"BOATYARD_DATABASE_URL": url})
    try:
        check = subprocess.run(
            program, env=environment, capture_output=True, text=True, timeout=_CHECK_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("database", FAIL, f"gives no answer in {_CHECK_TIMEOUT_S:g} s", "see whether it can be reached")
    if check.returncode:
        last_words = check.stderr.strip().rpartition("\n")[2].removeprefix("boatyard database: ")
        return Finding("database", FAIL, last_words, "correct BOATYARD_DATABASE_URL, or start the database")
    found = parse_json(check.stdout)
    if not found:
        return Finding("database", OK, "a file, which the first `boatyard up` makes")
    server = f"{found['kind']} {found['server_version']}"
    if not found["schema_version"]:
        return Finding("database", OK, f"{server}, empty: the first `boatyard up` makes its tables")
    return _database(server, found["schema_version"], found["schema_faults"], found["latency_ms"])


def _database(server: str, version: str, faults: Sequence[str], latency_ms: float) -> Finding:
    if faults:
        return Finding("database", FAIL, f"schema version {version}: {'; '.join(faults)}", _DATABASE_FIX)
    return Finding("database", OK, f"{server}, schema version {version}, answers in {latency_ms:.1f} ms")
