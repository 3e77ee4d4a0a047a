"""Where root runs the service, agents are not root outside: each workspace's have a uid of their own."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.ids import new_id
from services.sandbox import aio, environment
from services.sandbox.spec import Limits, Mount, MountAccess, SandboxSpec
from tests.kit import processes
from tests.kit.uids import give_to_agents, have_their_own

pytestmark = pytest.mark.skipif(not have_their_own(), reason="needs root, and a kernel that lets it give uids")

WORKSPACE = Path("/workspace")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace of agents with a uid of their own, in a directory that is closed to them."""
    path = tmp_path / "closed" / "workspace"
    path.mkdir(parents=True)
    path.parent.chmod(0o700)
    give_to_agents(path)
    return path


def shell(workspace: Path, line: str, *more: Mount, **fields: object) -> SandboxSpec:
    mounts = (Mount(workspace, WORKSPACE, MountAccess.READ_WRITE), *more)
    return SandboxSpec((b"/bin/sh", b"-c", line.encode()), WORKSPACE, mounts, environment.base(), **fields)


async def run(spec: SandboxSpec) -> str:
    completed = await aio.run(spec, timeout=20)
    assert completed.exit_code == 0, completed
    return completed.stdout.decode()


async def test_a_program_has_the_uid_of_its_workspace_and_is_the_same_as_ever_inside(workspace: Path) -> None:
    owner = workspace.stat().st_uid
    assert owner != 0
    line = "id -un; touch made; stat -c %u made . ; grep -c '^Uid:.1000' /proc/self/status; sleep 60"
    async with aio.start(shell(workspace, line)) as process:
        assert process.stdout
        seen = [(await process.stdout.readline()).decode().strip() for _ in range(4)]
        inside = [pid for pid in _descendants(process.pid) if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        uids = {Path(f"/proc/{pid}").stat().st_uid for pid in inside}
    assert seen == ["agent", "1000", "1000", "1"]
    assert (workspace / "made").stat().st_uid == owner
    assert uids == {owner}


async def test_no_file_that_it_leaves_is_roots(workspace: Path) -> None:
    await run(shell(workspace, "cp /bin/true suid && chmod 6755 suid && ./suid && ln -s x link && mkfifo pipe"))
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in workspace.iterdir()}
    assert owners == {(workspace.stat().st_uid, workspace.stat().st_gid)}


async def test_what_only_root_may_read_it_does_not_read(workspace: Path, tmp_path: Path) -> None:
    private = tmp_path / "closed" / "private"
    private.write_text("root's")
    private.chmod(0o600)
    kernels = ("/proc/kpagecount", "/proc/kpageflags", "/proc/slabinfo", "/proc/vmallocinfo")
    for path in ("/shown", *(path for path in kernels if Path(path).exists())):
        seen = await aio.run(shell(workspace, f"head -c 1 {path}", Mount(private, Path("/shown"))))
        assert (seen.exit_code != 0, seen.stdout) == (True, b""), path


async def test_it_changes_no_setting_of_the_kernel_and_no_device(workspace: Path) -> None:
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"):
        assert (await aio.run(shell(workspace, f"exec 3>>{path}"))).exit_code != 0, path
    assert (await aio.run(shell(workspace, "chmod 0 /dev/null"))).exit_code != 0


async def test_no_descriptor_of_ours_is_open_inside_and_no_user_namespace_can_be_made(workspace: Path) -> None:
    # The last one is the listing's own.
    assert (await run(shell(workspace, "ls /proc/self/fd"))).split() == ["0", "1", "2", "3"]
    assert (await run(shell(workspace, "cat /proc/sys/user/max_user_namespaces"))).strip() == "0"


async def test_the_limit_of_processes_holds(workspace: Path) -> None:
    line = "for i in $(seq 60); do sleep 5 & done; echo started"
    seen = await aio.run(shell(workspace, line, limits=Limits(processes=20)))
    assert b"started" not in seen.stdout, "without a uid of its own, root's processes are not limited"
    assert b"ork" in seen.stderr


async def test_what_it_uses_up_is_its_own(workspace: Path) -> None:
    program = """
import ctypes, time
libc = ctypes.CDLL(None)
while libc.inotify_init() >= 0:
    pass
print("none left", flush=True)
time.sleep(60)
"""
    (workspace / "use_up.py").write_text(program)
    async with aio.start(shell(workspace, "ulimit -n 4096; exec python3 use_up.py")) as process:
        assert process.stdout
        assert await process.stdout.readline() == b"none left\n"
        instance = ctypes.CDLL(None).inotify_init()
    assert instance >= 0, "our own user has none left"
    os.close(instance)


async def test_it_ends_with_the_program_that_started_it(workspace: Path) -> None:
    """The kernel's word to do so is lost when a program changes its uid, so bubblewrap has to give it afterwards."""
    name = new_id("mark")
    starter = f"""
import subprocess, sys
from pathlib import Path
from services.sandbox.launch import prepare
from tests.unit.sandbox.test_host_uids import shell
with prepare(shell(Path({str(workspace)!r}), "echo begun; export MARK={name}; exec sleep 600")) as launch:
    child = subprocess.Popen(launch.argv, env=launch.env, pass_fds=launch.pass_fds, stdin=subprocess.DEVNULL)
child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"begun\n"
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        # The pipe ends when the last process that has it does.
        assert parent.stdout.read() == b""
    assert processes.with_environment({"MARK": name}) == {}


def _descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(grandchild for child in children for grandchild in _descendants(child))]
