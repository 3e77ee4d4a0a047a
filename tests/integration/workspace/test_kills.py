"""The service killed a hundred times at random while it makes, removes and sweeps: every start finds its way back."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from boatyard.workspace.v1 import workspace_pb2 as pb
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub
from google.protobuf.duration_pb2 import Duration

from services.common.rpc.channel import open_channel
from services.workspace.drivers import mounts
from tests.integration.workspace.test_service import DESCRIPTOR, Service
from tests.kit.layout import workspace_trees
from tests.kit.mounts import unmount_below

KILLS = 100
IDS = [f"w{number}" for number in range(8)]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_hundred_kills_leave_nothing_that_nobody_knows(tmp_path: Path) -> None:
    seed = int(os.environ.get("BOATYARD_TEST_SEED", random.randrange(1 << 32)))
    print(f"BOATYARD_TEST_SEED={seed}")  # so that a failure can be had again
    chance = random.Random(seed)
    base, pins = tmp_path / "base", tmp_path / "pins"
    pins.mkdir()
    (base / "deep").mkdir(parents=True)
    for number in range(50):
        (base / "deep" / f"f{number}").write_text("from the base")
    with _killable(Quick(tmp_path / "home")) as service:
        for _ in range(KILLS):
            await _serving(service)
            work = [asyncio.create_task(_work(service, chance, base, pins)) for _ in range(3)]
            await asyncio.sleep(chance.uniform(0, 0.15))
            service.end(signal.SIGKILL)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            service.start()
        await _serving(service)
        known = await _known(service)
        async with asyncio.timeout(60):  # what was discarded is removed while it serves
            while service.rubbish() or service.trees() != set(known):
                await asyncio.sleep(0.05)
                known = await _known(service)
        assert {path.name for path in pins.iterdir()} == set(known)
        trees = workspace_trees(service.home)
        assert {point.relative_to(trees).parts[0] for point in mounts.mounted_below(trees)} == {
            name for name, workspace in known.items() if workspace.driver == "overlay"
        }
        for name, workspace in known.items():
            async with _stub(service) as stub:
                again = (await stub.CreateWorkspace(_request(name, base, pins), timeout=20)).workspace
            assert (again.create_time, again.layout) == (workspace.create_time, workspace.layout)
            where = Path(again.layout.path or again.layout.layers.mounted_path)
            if where != Path():
                assert (where / "deep" / "f0").read_text() == "from the base"


class Quick(Service):
    """The service, of which another process waits to take over: it has imported all that it needs."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.next = self._waiting()

    def start(self) -> None:
        self.process, self.next = self.next, self._waiting()
        assert self.process.stdin
        with self.process.stdin as go:
            go.write(b"go\n")

    def _waiting(self) -> "subprocess.Popen[bytes]":
        settings = {"BOATYARD_HOME": str(self.home.root), "BOATYARD_LOG_LEVEL": "ERROR"}
        line = "import sys; from services.workspace.app import main; sys.stdin.readline() and main()"
        with (self.home.root / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-c", line],
                env=os.environ | settings | {"BOATYARD_WORKSPACE_DISK_RESERVE_BYTES": "0"},
                stdin=subprocess.PIPE,
                stderr=log,
            )

    def end_of_log(self) -> str:
        return (self.home.root / "log").read_text()[-2000:]


@contextlib.contextmanager
def _killable(service: Quick):
    service.start()
    try:
        yield service
    finally:
        service.end()
        with service.next as waiting:
            assert waiting.stdin
            waiting.stdin.close()
        unmount_below(service.home.root)


def _request(workspace_id: str, base: Path, pins: Path) -> pb.CreateWorkspaceRequest:
    return pb.CreateWorkspaceRequest(workspace_id=workspace_id, base_layers=[str(base)], pins_path=str(pins))


@contextlib.asynccontextmanager
async def _stub(service: Service):
    async with open_channel(service.address, service.home.cell_token(), services=[DESCRIPTOR]) as channel:
        yield WorkspaceServiceStub(channel)


async def _serving(service: Quick) -> None:
    async with _stub(service) as stub:
        listing = asyncio.ensure_future(
            stub.ListWorkspaces(pb.ListWorkspacesRequest(), wait_for_ready=True, timeout=60)
        )
        while not listing.done():
            await asyncio.wait([listing], timeout=0.5)
            assert service.process.poll() is None, service.end_of_log()
        await listing


async def _known(service: Service) -> dict[str, pb.Workspace]:
    async with _stub(service) as stub:
        answer = await stub.ListWorkspaces(pb.ListWorkspacesRequest(), timeout=20)
    return {found.workspace_id: found for found in answer.workspaces}


async def _work(service: Service, chance: random.Random, base: Path, pins: Path) -> None:
    """Do one thing after another until the service is gone, or the test says so."""
    async with _stub(service) as stub:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                name = chance.choice(IDS)
                match chance.randrange(6):
                    case 0 | 1 | 2:
                        await stub.CreateWorkspace(_request(name, base, pins), timeout=20)
                    case 3:
                        await stub.DeleteWorkspace(pb.DeleteWorkspaceRequest(workspace_id=name), timeout=20)
                    case 4:
                        with contextlib.suppress(grpc.aio.AioRpcError):  # it may not be there
                            state = pb.Workspace.STATE_COMPLETED
                            update = pb.UpdateWorkspaceStateRequest(workspace_id=name, state=state)
                            await stub.UpdateWorkspaceState(update, timeout=20)
                    case 5:
                        await stub.SweepWorkspaces(pb.SweepWorkspacesRequest(max_age=Duration()), timeout=20)
