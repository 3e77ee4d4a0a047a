"""The service as a process of its own, killed and asked as the gateway does it."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from boatyard.workspace.v1 import workspace_pb2 as pb
from boatyard.workspace.v1.workspace_pb2_grpc import WorkspaceServiceStub
from google.protobuf.duration_pb2 import Duration

from services.common.errors import Exhausted, Invalid, NotFound, ServiceError
from services.common.fence import Fence
from services.common.home import Home
from services.common.rpc.channel import fence_metadata, open_channel
from services.common.rpc.status import service_error
from tests.kit.cell import eventually
from tests.kit.databases import add_databases
from tests.kit.layout import workspace_trees
from tests.kit.mounts import unmount_below

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["WorkspaceService"]


class Service:
    """`python -m services.workspace` on a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.home.directory("run")
        self.address = self.home.socket("workspace")
        add_databases(home, "workspace")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        settings = {"BOATYARD_HOME": str(self.home.root)}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "services.workspace"],
            env=os.environ | settings | {"BOATYARD_WORKSPACE_DISK_RESERVE_BYTES": "0"} | environment,
            stderr=subprocess.DEVNULL,
        )

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(how)
        return self.process.wait(timeout=20)

    def trees(self) -> set[str]:
        return {path.name for path in workspace_trees(self.home).iterdir()} - {".making", ".trash", ".empty"}

    def rubbish(self) -> list[Path]:
        return list(workspace_trees(self.home).glob(".*/*"))


@contextmanager
def running_service(home: Path, **environment: str):
    service = Service(home)
    service.start(**environment)
    try:
        yield service
    finally:
        assert service.process
        if service.process.poll() is None:
            service.end()
        unmount_below(home)


async def calling(service: Service, method: str, request, token: str | None = None, **options):
    """Call as the gateway does, once the service is there; raise what it answered."""
    async with open_channel(
        service.address, token if token is not None else service.home.cell_token(), services=[DESCRIPTOR]
    ) as channel:
        call = getattr(WorkspaceServiceStub(channel), method)
        try:
            return await call(request, wait_for_ready=True, timeout=20, **options)
        except grpc.aio.AioRpcError as error:
            raise service_error(error) from None


@pytest.fixture
def service(tmp_path: Path):
    with running_service(tmp_path / "home", BOATYARD_WORKSPACE_DRIVER="copy") as running:
        yield running


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    (directory / "file").write_text("from the base")
    return directory


async def test_the_life_of_a_workspace(service: Service, base: Path) -> None:
    labels = pb.WorkspaceLabels(project_id="default", job_id="job-a", branch="boatyard/job-a")
    request = pb.CreateWorkspaceRequest(workspace_id="w1", base_layers=[str(base)], labels=labels)
    made = (await calling(service, "CreateWorkspace", request)).workspace
    assert (made.state, made.labels) == (pb.Workspace.STATE_ACTIVE, labels)
    assert (Path(made.layout.path) / "file").read_text() == "from the base"
    assert (await calling(service, "CreateWorkspace", request)).workspace == made
    assert (await calling(service, "GetWorkspace", pb.GetWorkspaceRequest(workspace_id="w1"))).workspace == made

    sweep = pb.SweepWorkspacesRequest(max_age=Duration())
    assert (await calling(service, "SweepWorkspaces", sweep)).workspace_ids == []
    done = pb.UpdateWorkspaceStateRequest(workspace_id="w1", state=pb.Workspace.STATE_COMPLETED)
    await calling(service, "UpdateWorkspaceState", done)
    completed = pb.ListWorkspacesRequest(states=[pb.Workspace.STATE_COMPLETED], job_id="job-a")
    assert [found.workspace_id for found in (await calling(service, "ListWorkspaces", completed)).workspaces] == ["w1"]
    assert (await calling(service, "SweepWorkspaces", sweep)).workspace_ids == ["w1"]

    await calling(service, "DeleteWorkspace", pb.DeleteWorkspaceRequest(workspace_id="w1"))
    with pytest.raises(NotFound) as raised:
        await calling(service, "GetWorkspace", pb.GetWorkspaceRequest(workspace_id="w1"))
    assert (raised.value.reason, raised.value.resource_name) == ("WORKSPACE_NOT_FOUND", "w1")
    assert service.trees() == set()
    assert service.rubbish() == []


@pytest.mark.slow
async def test_what_nobody_works_in_is_not_kept_for_ever(service: Service) -> None:
    for workspace_id in ("idle", "busy"):
        await calling(service, "CreateWorkspace", pb.CreateWorkspaceRequest(workspace_id=workspace_id))
    done = pb.UpdateWorkspaceStateRequest(workspace_id="idle", state=pb.Workspace.STATE_ERROR)
    await calling(service, "UpdateWorkspaceState", done)
    service.end()
    service.start(BOATYARD_WORKSPACE_KEEP_HOURS="0.000001")
    await asyncio.to_thread(eventually, lambda: "idle" not in service.trees(), "the idle one is gone")
    assert "busy" in service.trees()


async def test_refusals_say_why(service: Service, base: Path) -> None:
    await calling(service, "CreateWorkspace", pb.CreateWorkspaceRequest(workspace_id="w1", base_layers=[str(base)]))

    async def reason(method: str, request, **options) -> str:
        with pytest.raises(ServiceError) as raised:
            await calling(service, method, request, **options)
        return raised.value.reason

    assert await reason("CreateWorkspace", pb.CreateWorkspaceRequest(workspace_id="w1")) == "REQUEST_ID_REUSED"
    nowhere = pb.CreateWorkspaceRequest(workspace_id="w2", base_layers=["/nowhere"])
    assert await reason("CreateWorkspace", nowhere) == "BASE_NOT_FOUND"
    assert await reason("GetWorkspace", pb.GetWorkspaceRequest(), token="wrong") == "CELL_TOKEN_REQUIRED"
    delete = pb.DeleteWorkspaceRequest(workspace_id="none")
    await calling(service, "DeleteWorkspace", delete, metadata=fence_metadata(Fence("job-a", 2)))
    assert await reason("DeleteWorkspace", delete, metadata=fence_metadata(Fence("job-a", 1))) == "STALE_FENCE"
    with pytest.raises(Invalid) as raised:
        await calling(service, "CreateWorkspace", pb.CreateWorkspaceRequest(base_layers=["x"]))
    assert {field for field, _ in raised.value.violations} == {"workspace_id", "base_layers[0]"}


async def test_a_full_disk_is_said_before_anything_is_copied(tmp_path: Path, base: Path) -> None:
    request = pb.CreateWorkspaceRequest(workspace_id="w1", base_layers=[str(base)])
    reserve = {"BOATYARD_WORKSPACE_DISK_RESERVE_BYTES": str(1 << 60)}
    with running_service(tmp_path / "home", **reserve) as service, pytest.raises(Exhausted) as raised:
        await calling(service, "CreateWorkspace", request)

    assert (raised.value.reason, raised.value.retry_after) == ("DISK_FULL", None)


@pytest.mark.slow
async def test_killed_while_copying_it_leaves_no_half_workspace(service: Service, tmp_path: Path) -> None:
    base = tmp_path / "large"
    base.mkdir()
    for number in range(3000):
        (base / f"f{number}").write_bytes(b"x" * 4096)
    request = pb.CreateWorkspaceRequest(workspace_id="w1", base_layers=[str(base)])
    creating = asyncio.create_task(calling(service, "CreateWorkspace", request))
    async with asyncio.timeout(30):
        while not any(workspace_trees(service.home).glob(".making/*/tree/*")):
            await asyncio.sleep(0.001)
    service.end(signal.SIGKILL)
    service.start(BOATYARD_WORKSPACE_DRIVER="copy")

    # The retry that the gateway's channel makes by itself, or else ours, finds the same request again.
    await asyncio.gather(creating, return_exceptions=True)
    made = (await calling(service, "CreateWorkspace", request)).workspace
    assert len(list(Path(made.layout.path).iterdir())) == 3000
    async with asyncio.timeout(30):
        while service.rubbish():
            await asyncio.sleep(0.02)
    assert service.trees() == {"w1"}


@pytest.mark.slow
def test_a_second_service_on_the_same_directory_names_the_first(tmp_path: Path) -> None:
    with running_service(tmp_path / "home") as first:
        asyncio.run(calling(first, "ListWorkspaces", pb.ListWorkspacesRequest()))
        second = subprocess.run(
            [sys.executable, "-P", "-m", "services.workspace"],
            env=os.environ | {"BOATYARD_HOME": str(first.home.root)},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert first.process

    assert second.returncode == 78
    assert f"process {first.process.pid} already serves" in second.stderr
