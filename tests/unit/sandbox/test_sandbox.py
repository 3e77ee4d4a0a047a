"""The sandbox, used for real: what a program in it sees, may do, and cannot reach."""

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sandbox import aio, environment, shared_uid
from services.sandbox.errors import OutputLimitError, SandboxTimeoutError, SandboxUnavailableError
from services.sandbox.launch import prepare
from services.sandbox.probe import diagnose, probe
from services.sandbox.spec import Limits, Mount, MountAccess, Network, Overlay, SandboxSpec, Tier

WORKSPACE = Path("/workspace")

_USES_UP = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
instances = 0
while libc.inotify_init() >= 0:
    instances += 1
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
signals = 0
while libc.sigqueue(os.getpid(), 40, None) == 0:
    signals += 1
print(instances, signals)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


def shell(workspace: Path, line: str, *more: Mount | Overlay, **fields: object) -> SandboxSpec:
    variables = environment.base() | fields.pop("variables", {})
    mounts = (Mount(workspace, WORKSPACE, MountAccess.READ_WRITE), *more)
    return SandboxSpec((b"/bin/sh", b"-c", line.encode()), WORKSPACE, mounts, variables, **fields)


async def output(spec: SandboxSpec) -> str:
    completed = await aio.run(spec, timeout=20)
    assert completed.exit_code == 0, completed
    return completed.stdout.decode()


async def test_it_works_here() -> None:
    probe()


async def test_a_program_is_somebody_without_rights_in_its_workspace(workspace: Path) -> None:
    seen = await output(shell(workspace, "id -u; id -un; pwd; cd; pwd; touch /workspace/made /tmp/x ~/x; echo $$"))
    uid, name, cwd, home, pid = seen.split()
    assert (uid, name, cwd, home) == ("1000", "agent", "/workspace", "/home/agent")
    assert int(pid) < 10, "it sees processes of its own namespace only"
    assert (workspace / "made").stat().st_uid == os.getuid()


async def test_the_tools_that_everybody_needs_are_there(workspace: Path) -> None:
    assert (
        await output(shell(workspace, "git --version >/dev/null && python3 -c 'import ssl, sys; print(6 * 7)'"))
        == "42\n"
    )


async def test_the_system_is_read_only_and_our_files_are_not_there(workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "secret").write_text("secret")
    seen = await output(
        shell(
            workspace,
            f"cat {other}/secret /etc/shadow 2>&1; ls {tmp_path} 2>&1; ls -A /tmp;"
            " for p in /usr /etc / /usr/bin /workspace/..; do touch $p/made 2>/dev/null && echo wrote $p; done; true",
        )
    )
    assert "secret\n" not in seen.replace("/secret", "")
    assert "root:" not in seen
    assert "wrote" not in seen
    assert "other" not in seen.splitlines()


async def test_root_of_the_host_lends_no_rights_to_read_private_keys(workspace: Path) -> None:
    seen = await output(shell(workspace, "ls /etc /etc/ssl; ls /etc/ssl/private 2>/dev/null; true"))
    assert "private" not in seen.split()
    assert "shadow" not in seen.split()


async def test_a_path_is_read_only_unless_said_otherwise(workspace: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "file").write_text("content")
    seen = await output(shell(workspace, f"cat {shown}/file; echo x 2>&1 > {shown}/file || echo refused", Mount(shown)))
    assert seen.startswith("content")
    assert (shown / "file").read_text() == "content"


async def test_layers_take_the_changes_on_top(workspace: Path, tmp_path: Path) -> None:
    lower, higher, upper, work = (tmp_path / name for name in ("lower", "higher", "upper", "work"))
    for path in (lower, higher, upper, work):
        path.mkdir()
    (lower / "both").write_text("low")
    (higher / "both").write_text("high")
    (lower / "one").write_text("one")
    target = Path("/layered")
    layers = Overlay((higher, lower), upper, work, target)
    assert await output(shell(workspace, "cd /layered; cat both one; echo new > one; rm both", layers)) == "highone"
    assert (upper / "one").read_text() == "new\n"
    assert (lower / "one").read_text() == "one"


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize("network", Network)
async def test_no_port_of_the_host_is_reached_with_any_network(
    workspace: Path, listener: int, network: Network
) -> None:
    line = f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {listener}), 2)'"
    closed = await aio.run(shell(workspace, line, network=network))
    assert closed.exit_code == 1
    assert b"refused" in closed.stderr


async def test_its_own_loopback_has_a_name_and_other_names_fail_at_once(workspace: Path) -> None:
    serving = "s = socket.create_server(('localhost', 0)); socket.create_connection(('localhost', s.getsockname()[1]))"
    assert await output(shell(workspace, f'python3 -c "import socket; {serving}"')) == ""
    assert (await output(shell(workspace, "hostname; cat /etc/hostname; getent hosts boatyard >&2"))).split() == [
        "boatyard"
    ] * 2
    assert (await aio.run(shell(workspace, "getent hosts example.com"), timeout=20)).exit_code == 2


async def test_no_further_user_namespace_can_be_made(workspace: Path) -> None:
    assert (await aio.run(shell(workspace, "unshare -U true"))).exit_code != 0


async def test_what_is_counted_for_our_user_is_bounded_in_each_sandbox(workspace: Path) -> None:
    """Our user and its agents are one to the kernel, so that an agent at its limits would take from everybody."""
    instances = shared_uid.limits()["max_inotify_instances"]
    (workspace / "use_up.py").write_text(_USES_UP)
    got_instances, got_signals = map(int, (await output(shell(workspace, "python3 use_up.py"))).split())
    assert 0 < got_instances <= instances
    assert 0 < got_signals <= shared_uid.pending_signals()
    raised = "echo 1000000 >/proc/sys/user/max_inotify_instances; ulimit -i unlimited; python3 use_up.py"
    again, _ = map(int, (await aio.run(shell(workspace, raised))).stdout.split())
    assert again == got_instances


async def test_the_environment_is_complete_and_in_nobodys_argv(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOATYARD_TOKEN", "of-the-host")
    kept = uuid.uuid4().hex.encode()  # no other test of this host has it in its arguments
    spec = shell(workspace, "env; sleep 60", variables={"AGENT_KEY": b"key-\xff-\n-" + kept})
    async with aio.start(spec) as process:
        assert process.stdout
        seen = b""
        while kept not in seen:
            seen += await process.stdout.read(4096)
        listing = b"".join(entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if _readable(entry))
    assert b"AGENT_KEY=key-\xff-\n-" + kept in seen
    assert b"of-the-host" not in seen
    assert kept not in listing


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


async def test_no_descriptor_of_ours_is_open_inside(workspace: Path) -> None:
    assert (await output(shell(workspace, "ls /proc/self/fd"))).split() == [
        "0",
        "1",
        "2",
        "3",
    ]  # 3 is the listing's own


async def test_limits_hold(workspace: Path) -> None:
    limits = Limits(address_space_bytes=256 << 20, open_files=64, cpu_seconds=7, file_size_bytes=1 << 20)
    line = "ulimit -v; ulimit -n; ulimit -t; dd if=/dev/zero of=big bs=64k count=32"
    seen = await aio.run(shell(workspace, line, limits=limits))
    assert seen.stdout.split() == [b"262144", b"64", b"7"]
    assert (workspace / "big").stat().st_size == 1 << 20
    full = await aio.run(shell(workspace, "dd if=/dev/zero of=/tmp/big", limits=Limits(scratch_bytes=2 << 20)))
    assert b"No space left" in full.stderr


async def test_a_limit_above_the_hosts_own_is_lowered_to_it(workspace: Path) -> None:
    assert await output(shell(workspace, "echo fine", limits=Limits(open_files=1 << 40))) == "fine\n"


@pytest.mark.parametrize("tier", Tier)
async def test_exit_codes_are_what_the_program_chose(workspace: Path, tier: Tier) -> None:
    for code in (0, 3, 200):
        assert (await aio.run(shell(workspace, f"exit {code}", tier=tier))).exit_code == code
    missing = await aio.run(SandboxSpec((b"no-such-program",), Path("/"), environment=environment.base(), tier=tier))
    assert missing.exit_code == 127
    assert b"no-such-program" in missing.stderr


async def test_input_of_any_size_arrives_and_an_ignored_one_is_no_error(workspace: Path) -> None:
    content = os.urandom(3_000_000)
    assert (await aio.run(shell(workspace, "cat"), stdin=content)).stdout == content
    assert (await aio.run(shell(workspace, "exec <&-; echo done"), stdin=content)).stdout == b"done\n"


async def test_time_and_output_are_bounded_and_nothing_is_left(workspace: Path) -> None:
    with pytest.raises(SandboxTimeoutError, match="longer than"):
        await aio.run(shell(workspace, "setsid -f sleep 6543; sleep 6543"), timeout=0.2)
    with pytest.raises(OutputLimitError, match="more than 1000 bytes"):
        await aio.run(shell(workspace, "yes; sleep 6543"), max_output=1000)
    await _gone(b"sleep\x006543")


async def test_a_cancelled_run_leaves_nothing(workspace: Path) -> None:
    task = asyncio.create_task(aio.run(shell(workspace, "trap '' TERM; sleep 7654; true")))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(b"sleep\x007654")


async def test_one_that_is_cancelled_at_any_moment_of_its_start_leaves_nothing() -> None:
    mark = uuid.uuid4().hex
    spec = SandboxSpec((b"sleep", b"6543", mark.encode()), Path("/"), environment=environment.base())
    for moment in range(40):
        task = asyncio.create_task(aio.run(spec))
        await asyncio.sleep(moment * 0.0002)  # an early end needs other means than a late one: a few ms matter
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await _gone(mark.encode())


async def _gone(command: bytes) -> None:
    async with asyncio.timeout(5):
        while any(command in entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if _readable(entry)):
            await asyncio.sleep(0.01)


async def test_without_a_sandbox_the_program_starts_in_the_same_place(workspace: Path, tmp_path: Path) -> None:
    (workspace / "sub").mkdir()
    spec = SandboxSpec(
        (b"/bin/sh", b"-c", b"pwd; echo $HOME; env | grep -c BOATYARD_TEST; ulimit -n"),
        WORKSPACE / "sub",
        (Mount(workspace, WORKSPACE, MountAccess.READ_WRITE),),
        environment.base(),
        limits=Limits(open_files=99),
        tier=Tier.NONE,
    )
    with prepare(spec, home=tmp_path) as launch:
        assert launch.cwd == workspace / "sub"
        assert launch.env[b"HOME"] == launch.env[b"TMPDIR"] == bytes(tmp_path)
    completed = await aio.run(spec)
    assert completed.stdout.split()[0] == bytes(workspace / "sub")
    assert completed.stdout.split()[2:] == [b"0", b"99"], "nothing of the host's environment is added"


def test_layers_need_the_sandbox(tmp_path: Path) -> None:
    spec = SandboxSpec((b"true",), Path("/"), (Overlay((tmp_path,), tmp_path, tmp_path, WORKSPACE),), tier=Tier.NONE)
    with pytest.raises(SandboxUnavailableError, match="layered"), prepare(spec):
        pass


@pytest.mark.parametrize(
    ("argv", "variables"),
    [((), {}), ((b"-x",), {}), ((b"a\0b",), {}), ((b"a",), {"A=B": b""}), ((b"a",), {"A": b"\0"})],
)
def test_a_spec_that_cannot_be_started_is_refused(argv: tuple[bytes, ...], variables: dict[str, bytes]) -> None:
    with pytest.raises(ValueError), prepare(SandboxSpec(argv, Path("/"), environment=variables)):
        pass


@pytest.mark.parametrize(
    ("switch", "value", "mend"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        (None, "", "seccomp=unconfined"),
    ],
)
def test_what_is_wrong_comes_with_its_mend(tmp_path: Path, switch: str | None, value: str, mend: str) -> None:
    if switch:
        (tmp_path / switch).parent.mkdir()
        (tmp_path / switch).write_text(value + "\n")
    error = diagnose("bwrap: No permissions to create new namespace", tmp_path)
    assert mend in error.mend
    assert "No permissions" in str(error)
