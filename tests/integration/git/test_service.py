"""The service as a process of its own, asked as the gateway does it, and killed in the middle of its work."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from boatyard.git.v1 import git_pb2 as pb
from boatyard.git.v1.git_pb2_grpc import GitServiceStub
from boatyard.workspace.v1 import layout_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.errors import AlreadyExists, FailedPrecondition, Invalid, NotFound, Unauthenticated
from services.common.fence import Fence
from services.common.home import Home
from services.common.lock import is_held
from services.common.rpc.channel import fence_metadata, open_channel
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from tests.kit.databases import add_databases
from tests.kit.githttp import git_server
from tests.kit.layout import git_directory, workspace_trees
from tests.kit.repos import Repo

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GitService"]
SIGNATURE = pb.Signature(name="Boatyard", email="boatyard@example.com", time=Timestamp(seconds=1_800_000_000))


class Service:
    """`python -m services.git` on a home of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = Home(home)
        self.home.directory("run")
        self.address = self.home.socket("git")
        add_databases(home, "git")
        settings = {"BOATYARD_HOME": str(home), "BOATYARD_GIT_MIN_FREE_BYTES": "0"}
        self.environment = os.environ | settings | environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "services.git"]
        self.process = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(how)
        return self.process.wait(timeout=20)

    async def call(self, method: str, request: object, token: str | None = None, **options):
        """Return the answer, or all messages of a stream; raise what the service answered."""
        shown = self.home.cell_token() if token is None else token
        async with open_channel(self.address, shown, services=[DESCRIPTOR]) as channel:
            call = getattr(GitServiceStub(channel), method)(request, wait_for_ready=True, timeout=30, **options)
            try:
                if method not in {"PrepareBase", "GetDiff", "Push", "CloneRepository"}:
                    return await call
                async with streaming(call) as messages:
                    return [message async for message in messages]
            except grpc.aio.AioRpcError as error:
                raise service_error(error) from None


@contextmanager
def running(service: Service) -> Iterator[Service]:
    service.start()
    try:
        yield service
    finally:
        if service.process and service.process.poll() is None:
            service.end(signal.SIGKILL)


@pytest.fixture
def upstream(tmp_path: Path) -> Repo:
    return Repo.sample(tmp_path / "work").bare_clone(tmp_path / "remote.git")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(Service(tmp_path / "home", BOATYARD_GIT_FILE_ROOTS=str(tmp_path))) as service:
        yield service


async def test_from_a_remote_to_a_pushed_branch(service: Service, upstream: Repo) -> None:
    remote = pb.Remote(repository_id="repo-1", url=str(upstream.path))
    *_, last = await service.call("PrepareBase", pb.PrepareBaseRequest(remote=remote))
    base = last.base
    assert base.commit_id == upstream.head("main")
    path = workspace_trees(service.home) / "w" / "tree"
    path.parent.mkdir(parents=True)
    shutil.copytree(base.layers[0], path, symlinks=True)
    tree = pb.WorkingTree(layout=layout_pb2.Layout(path=str(path)), read_only_paths=base.read_only_paths)
    fence = fence_metadata(Fence("job-1", 2))

    branch = "boatyard/job-1"
    await service.call("CreateBranch", pb.CreateBranchRequest(tree=tree, branch=branch), metadata=fence)
    head = await service.call("GetCurrentBranch", pb.GetCurrentBranchRequest(tree=tree))
    assert (head.branch, head.commit_id) == (branch, base.commit_id)
    Repo(path).write({f"file-{number}": "x\n" for number in range(5)})
    status = await service.call("GetStatus", pb.GetStatusRequest(tree=tree, page_size=2))
    assert [entry.path for entry in status.entries] == ["file-0", "file-1"]
    assert not status.is_clean
    assert (await service.call("StageAll", pb.StageAllRequest(tree=tree))).staged_files == 5
    commit = pb.CommitRequest(tree=tree, message="mine", signature=SIGNATURE)
    kept = (await service.call("Commit", commit)).commit_id

    order = pb.TakeResultRequest(
        tree=tree, repository_id="repo-1", result_id="exec-1", base_commit_id=base.commit_id, message="work",
        signature=SIGNATURE,
    )  # fmt: skip
    result = await service.call("TakeResult", order, metadata=fence)
    assert (result.commit_id, result.changed, result.agent_commits) == (kept, True, 1)
    with pytest.raises(FailedPrecondition, match="another owner"):
        await service.call("TakeResult", order, metadata=fence_metadata(Fence("job-1", 1)))

    pair = {"repository_id": "repo-1", "base_commit_id": base.commit_id, "commit_id": kept}
    files: list[str] = []
    token = ""
    while True:
        answer = await service.call(
            "ListChangedFiles", pb.ListChangedFilesRequest(**pair, page_size=2, page_token=token)
        )
        assert answer.total_files == 5
        files += [file.path for file in answer.files]
        token = answer.next_page_token
        if not token:
            break
    assert files == [f"file-{number}" for number in range(5)]
    messages = await service.call("GetDiff", pb.GetDiffRequest(**pair, max_bytes=300))
    assert b"".join(message.data for message in messages).count(b"diff --git") == 5 - messages[-1].omitted_files
    assert messages[-1].truncated

    push = pb.PushRequest(remote=remote, commit_id=kept, branch=branch)
    *told, last = await service.call("Push", push)
    assert all(message.progress.phase for message in told)
    assert not last.pushed.already_there
    assert (await service.call("Push", push))[-1].pushed.already_there

    keep = pb.SnapshotTreeRequest(
        tree=tree, repository_id="repo-1", snapshot_id="kept", base_commit_id=base.commit_id, message="before it goes"
    )
    snapshot = (await service.call("SnapshotTree", keep, metadata=fence)).snapshot
    assert snapshot.commit_id == kept
    assert snapshot.expire_time.ToDatetime() - snapshot.create_time.ToDatetime() == timedelta(days=30)
    assert (await service.call("GetSnapshot", pb.GetSnapshotRequest(snapshot_id="kept"))).snapshot == snapshot
    listed = await service.call("ListSnapshots", pb.ListSnapshotsRequest(repository_id="repo-1"))
    assert list(listed.snapshots) == [snapshot]
    await service.call("DeleteSnapshot", pb.DeleteSnapshotRequest(snapshot_id="kept"))
    with pytest.raises(NotFound, match="kept"):
        await service.call("GetSnapshot", pb.GetSnapshotRequest(snapshot_id="kept"))
    assert upstream.head("boatyard/job-1") == kept

    verify = pb.PrepareBaseRequest(remote=remote, result_commit_id=kept)
    *_, last = await service.call("PrepareBase", verify)
    assert Repo(Path(last.base.layers[0])).head() == kept


async def test_bad_requests_are_told_apart(service: Service, upstream: Repo) -> None:
    remote = pb.Remote(repository_id="repo-1", url=str(upstream.path))
    with pytest.raises(Unauthenticated):
        await service.call("PrepareBase", pb.PrepareBaseRequest(), token="wrong")
    with pytest.raises(Invalid) as failure:
        await service.call("PrepareBase", pb.PrepareBaseRequest(remote=pb.Remote(url="ext::sh")))
    assert {field for field, _ in failure.value.violations} == {"remote.repository_id", "remote.url"}
    with pytest.raises(NotFound, match="nope"):
        await service.call("PrepareBase", pb.PrepareBaseRequest(remote=remote, revision="nope"))
    clone = pb.CloneRepositoryRequest(clone_id="clone-1", remote=remote)
    made = (await service.call("CloneRepository", clone))[-1].clone
    assert (await service.call("CloneRepository", clone))[-1].clone == made
    clone.depth = 1
    with pytest.raises(AlreadyExists) as reused:
        await service.call("CloneRepository", clone)
    assert reused.value.reason == "REQUEST_ID_REUSED"


async def test_a_second_service_on_the_same_directory_does_not_start(service: Service) -> None:
    second = Service(service.home.root)
    with pytest.raises(NotFound):
        await service.call("GetDiff", pb.GetDiffRequest(repository_id="r", base_commit_id="0" * 40, commit_id="0" * 40))
    second.start()
    assert second.process
    assert await asyncio.to_thread(second.process.wait, 20) == 78


async def test_without_git_it_says_so(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", PATH="/nonexistent")
    command = [sys.executable, "-P", "-m", "services.git"]
    ended = await asyncio.to_thread(subprocess.run, command, env=service.environment, capture_output=True, timeout=20)
    assert (ended.returncode, b"git is not installed" in ended.stderr) == (78, True)
    assert b"Traceback" not in ended.stderr


async def test_killed_in_the_middle_of_a_clone(tmp_path: Path) -> None:
    Repo.sample(tmp_path / "work").bare_clone(tmp_path / "served" / "repo.git")
    with git_server(tmp_path / "served", "token") as server:
        service = Service(tmp_path / "home", BOATYARD_GIT_ALLOW_LOOPBACK_HTTP="1")
        request = pb.PrepareBaseRequest(remote=pb.Remote(repository_id="r", url=server.url("repo.git"), token="token"))
        server.may_answer.clear()
        with running(service):
            asking = asyncio.create_task(service.call("PrepareBase", request))
            assert await asyncio.to_thread(server.asked.wait, 20)
            service.end(signal.SIGKILL)
            asking.cancel()
            await asyncio.wait([asking])
        mirrors = git_directory(service.home) / "mirrors"
        assert not (mirrors / "r.git").exists()
        assert is_held(mirrors / "r.lock"), "the orphaned git must keep the lock: it may still write"
        with running(service):
            asking = asyncio.create_task(service.call("PrepareBase", request))
            server.may_answer.set()
            *_, last = await asking
            assert last.base.commit_id == Repo(tmp_path / "work").head()
            assert service.end() == 0


@pytest.mark.slow
async def test_what_repositories_take_is_told_page_by_page(service: Service, upstream: Repo) -> None:
    for number in range(3):
        remote = pb.Remote(repository_id=f"repo-{number}", url=str(upstream.path))
        *_, last = await service.call("PrepareBase", pb.PrepareBaseRequest(remote=remote))
    (Path(last.base.pins_path) / "workspace-1").touch()
    first = await service.call("ListRepositoryUsage", pb.ListRepositoryUsageRequest(page_size=2))
    assert [row.repository_id for row in first.repositories] == ["repo-0", "repo-1"]
    token = first.next_page_token
    second = await service.call("ListRepositoryUsage", pb.ListRepositoryUsageRequest(page_size=2, page_token=token))
    (row,) = second.repositories
    assert not second.next_page_token
    assert [(base.commit_id, base.pins) for base in row.bases] == [(upstream.head("main"), 1)]
    assert min(row.mirror_bytes, row.bases_bytes, row.bases[0].inodes) > 0
    assert second.total_bytes == first.total_bytes
    assert second.budget_bytes == 64 << 30
    with pytest.raises(Invalid):
        await service.call("ListRepositoryUsage", pb.ListRepositoryUsageRequest(page_token="mine"))
