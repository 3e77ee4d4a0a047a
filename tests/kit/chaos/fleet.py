"""The cells, their database, the remotes that they push to, and the server that webhooks are sent to."""

import asyncio
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from boatyard.gateway.v1 import catalog_pb2, hook_pb2
from boatyard.gateway.v1.budget_pb2_grpc import BudgetServiceStub
from boatyard.gateway.v1.catalog_pb2_grpc import CatalogServiceStub
from boatyard.gateway.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from boatyard.gateway.v1.hook_pb2_grpc import HookServiceStub
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub
from boatyard.gateway.v1.runtime_pb2_grpc import AgentRuntimeServiceStub
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub

from services.common.home import Home
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from tests.kit.chaos.machines import FleetCell, FleetCoordinator, end
from tests.kit.databases import write_keys
from tests.kit.disks import small_disk
from tests.kit.postgres import OwnPostgres
from tests.kit.receiver import Receiver, Reply
from tests.kit.repos import Repo

LEASE_SECONDS = 6
SHORT_LEASE_SECONDS = 3
"""That of the second cell."""
DISK = {"size": "512m", "inodes": 60_000}
"""That of the first cell, where root can make it one of its own."""
_RESERVES = {"EXECUTION_DISK_RESERVE": 48 << 20, "GIT_MIN_FREE": 24 << 20, "WORKSPACE_DISK_RESERVE": 24 << 20}
SERVICES = ("gateway", "workspace", "git", "execution")

_PATIENCE_SECONDS = 120.0
_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_UNCLEAR = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


class Fleet:
    """Everything that faults are injected into, and the stubs to call it."""

    def __init__(
        self, directory: Path, cells: int, coordinators: int, database: OwnPostgres | None, rng: random.Random
    ) -> None:
        self.directory = directory
        self.database = database
        self.mark = f"chaos-{secrets.token_hex(6)}"
        self.unclear: Counter[str] = Counter()
        """Errors that tell a caller nothing useful, with their counts."""
        self.receiver = Receiver([Reply(503) if rng.random() < 0.05 else Reply() for _ in range(3000)])
        self.remotes: dict[str, Repo] = {}
        self.token = secrets.token_urlsafe(24)
        self.cells = [
            FleetCell(*self._machine(f"cell-{number}"), has_small_disk=number == 1 and os.geteuid() == 0)
            for number in range(1, cells + 1)
        ]
        self.coordinators = [
            FleetCoordinator(*self._machine(f"coordinator-{number}"), self.cells)
            for number in range(1, coordinators + 1)
        ]
        self._rng = random.Random(rng.random())
        self._stubs: dict[str, dict[str, Any]] = {}

    @property
    def repositories(self) -> list[str]:
        return list(self.remotes)

    @property
    def machines(self) -> list[FleetCell]:
        return [*self.cells, *self.coordinators]

    @property
    def living(self) -> list[FleetCell]:
        return [machine for machine in self.machines if not machine.is_gone]

    @property
    def database_url(self) -> str:
        if self.database is not None:
            return self.database.url
        return f"sqlite:///{self.cells[0].home}/gateway/gateway.db"

    def _machine(self, name: str) -> tuple[Path, dict[str, str]]:
        """Return the home and the environment of a machine."""
        directory = self.directory / name
        directory.mkdir()
        environment = {
            "BOATYARD_TOKEN": self.token,
            "BOATYARD_GATEWAY_LEASE_SECONDS": str(SHORT_LEASE_SECONDS if name == "cell-2" else LEASE_SECONDS),
            "BOATYARD_GATEWAY_WEBHOOK_ALLOW": "127.0.0.1",
            "BOATYARD_COORDINATOR_WEBHOOK_ALLOW": "127.0.0.1",
            "BOATYARD_EXECUTION_MEMORY_RESERVE_BYTES": "0",
            **{f"BOATYARD_{name}_BYTES": str(reserve) for name, reserve in _RESERVES.items()},
        }
        if self.database is not None and name.startswith("cell"):
            environment["BOATYARD_DATABASE_URL"] = self.database.url
            keys = self.directory / "keys"
            environment["BOATYARD_GATEWAY_KEYS_FILE"] = str(keys if keys.exists() else write_keys(keys))
        return directory / "home", environment

    async def ask(self, service: str, method: str, request: Any, *, timeout: float = 10) -> Any:
        """Call any gateway, again and again until one answers. Raises the error of a refusal."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            cell = self.any_cell()
            try:
                return await getattr(self._stubs[cell.name][service], method)(request, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                if error.code() in _UNCLEAR:
                    self.unclear[f"{method}: {error.code().name} {error.details()}"] += 1
                elif error.code() not in _UNREACHABLE:
                    raise
                if time.monotonic() > deadline:
                    raise AssertionError(f"no gateway answers {method}: {service_error(error)}") from error
            await asyncio.sleep(0.3)

    def any_cell(self) -> FleetCell:
        """Return a cell with a gateway that has not been lost for good."""
        return self._rng.choice([cell for cell in self.cells if not cell.is_gone])

    def stub(self, cell: FleetCell, service: str) -> Any:
        """Return the stub of a service of a cell."""
        return self._stubs[cell.name][service]

    async def each(self, work: Callable[[FleetCell], object]) -> None:
        """Call a blocking function for every living machine at once."""
        await asyncio.gather(*(asyncio.to_thread(work, cell) for cell in self.living))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Fleet"]:
        """Start everything, and end it afterwards."""
        async with AsyncExitStack() as stack:
            for cell in self.cells:
                if cell.has_small_disk:
                    stack.enter_context(small_disk(cell.home, **DISK))
            await stack.enter_async_context(self.receiver.serving())
            await asyncio.to_thread(self.cells[0].bring_up)  # this one makes the tables
            try:
                await asyncio.gather(*(asyncio.to_thread(cell.bring_up) for cell in self.machines[1:]))
                for cell in self.machines:
                    self._stubs[cell.name] = await _stubs(stack, cell, self.token)
                await self._fill_catalogue()
                yield self
            finally:
                await asyncio.gather(*(asyncio.to_thread(end, cell) for cell in self.machines))

    async def _fill_catalogue(self) -> None:
        """Register the remotes, a project whose hook vetoes every job, and webhooks for the events of all jobs."""
        for number in (1, 2):
            remote = Repo.sample(self.directory / f"work-{number}").bare_clone(self.directory / f"remote-{number}.git")
            remote.git("config", "core.logAllRefUpdates", "always")
            request = catalog_pb2.CreateRepositoryRequest(repository=catalog_pb2.Repository(url=str(remote.path)))
            made = await self.ask("catalog", "CreateRepository", request)
            self.remotes[made.repository.repository_id] = remote
        guarded = catalog_pb2.Project(project_id="guarded", display_name="Guarded")
        await self.ask("catalog", "CreateProject", catalog_pb2.CreateProjectRequest(project=guarded))
        events = hook_pb2.Hook
        webhook = hook_pb2.Webhook(url=self.receiver.url)
        guard = hook_pb2.Hook(project_id="guarded", event=events.EVENT_PRE, command="echo not here; exit 1")
        webhooks = [
            hook_pb2.Hook(project_id=project_id, event=event, webhook=webhook)
            for project_id in ("default", "guarded")
            for event in (events.EVENT_PRE, events.EVENT_POST, events.EVENT_ERROR)
        ]
        for hook in (guard, *webhooks):
            await self.ask("hooks", "CreateHook", hook_pb2.CreateHookRequest(hook=hook))


async def _stubs(stack: AsyncExitStack, cell: FleetCell, token: str) -> dict[str, Any]:
    async def channel(service: str, token: str) -> grpc.aio.Channel:
        return await stack.enter_async_context(open_channel(cell.address(service), token))

    node_token = Home(cell.home).cell_token()
    nodes = {
        "workspaces": WorkspaceServiceStub(await channel("workspace", node_token)),
        "executions": ExecutionServiceStub(await channel("execution", node_token)),
    }
    if cell.driver != "gateway":
        return nodes
    gateway = await channel("gateway", token)
    return nodes | {
        "jobs": JobServiceStub(gateway),
        "runtime": AgentRuntimeServiceStub(gateway),
        "catalog": CatalogServiceStub(gateway),
        "hooks": HookServiceStub(gateway),
        "checkpoints": CheckpointServiceStub(gateway),
        "budgets": BudgetServiceStub(gateway),
    }
