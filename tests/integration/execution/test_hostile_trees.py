"""Shows, from outside, that nothing is left of a program, whatever it starts and however it hides."""

import os
import re
import time
from pathlib import Path

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.ids import new_id
from tests.integration.execution.hostile import KINDS, THOUSAND, program
from tests.integration.execution.service import Client, State
from tests.kit import processes

BUBBLEWRAP, NONE = sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE
GRACE_S = 0.1
FEW = [kind if number % 3 == 0 else pytest.param(kind, marks=pytest.mark.slow) for number, kind in enumerate(KINDS)]


class Outside:
    """What the kernel tells an outsider about one execution's processes."""

    def __init__(self, client: Client, name: str) -> None:
        self._name = name
        # Held open, because the kernel reuses the number of a namespace that is gone for the next one.
        self._held = [fd for pid in self.marked() if (fd := _open_namespace(pid)) is not None]
        self._namespaces = {os.fstat(fd).st_ino for fd in self._held} - {_namespace("self")}
        group = client.service.run_directory(name) / "group"
        self._groups = re.findall(r'"(/[^"]+)"', group.read_text()) if group.exists() else []

    def marked(self) -> dict[int, str]:
        return processes.with_environment({"BOATYARD_EXECUTION_ID": self._name})

    def check_nothing_is_left(self) -> None:
        try:
            assert self.marked() == {}
            in_namespaces = [pid for pid in _pids() if _namespace(pid) in self._namespaces]
            assert in_namespaces == [], "its PID namespace is still there"
            assert [path for path in self._groups if Path(path).exists()] == [], "its control group is still there"
        finally:
            for fd in self._held:
                os.close(fd)


def _pids() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _open_namespace(pid: int) -> int | None:
    try:
        return os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY)
    except OSError:
        return None


def _namespace(pid: str) -> int:
    """Return a process's PID namespace; 0 for one that is gone, or a zombie that the machine's init has not reaped."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return 0
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return 0


def check_end(end: pb.NodeExecution, tier: int) -> None:
    assert end.processes_left == 0
    verified = pb.NodeExecution.EndVerification.Name(end.end_verified_by).removeprefix("END_VERIFICATION_")
    assert verified in ({"PID_NAMESPACE"} if tier == BUBBLEWRAP else {"CGROUP", "SUBREAPER"})


@pytest.mark.parametrize("kind", FEW)
@pytest.mark.parametrize("tier", [BUBBLEWRAP, pytest.param(NONE, marks=pytest.mark.slow)])
async def test_nothing_is_left_after_a_cancel(shared: Client, kind: str, tier: int) -> None:
    name = new_id("hostile")
    await shared.start(name, program(KINDS[kind]), sandbox_tier=tier)
    await shared.watch(name, until=b"ready")
    outside = Outside(shared, name)
    await shared.stop(name, GRACE_S)
    end = await shared.end(name)
    check_end(end, tier)
    outside.check_nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tier", [BUBBLEWRAP, NONE])
async def test_nothing_is_left_after_a_normal_exit(shared: Client, kind: str, tier: int) -> None:
    name = new_id("hostile")
    await shared.start(name, program(KINDS[kind], then_exit=True), sandbox_tier=tier)
    await shared.watch(name, until=b"ready")
    outside = Outside(shared, name)
    end = await shared.end(name)
    assert (end.state, end.exit_code) == (State.STATE_SUCCEEDED, 0)
    check_end(end, tier)
    outside.check_nothing_is_left()


@pytest.mark.slow
async def test_nothing_is_left_after_a_timeout(shared: Client) -> None:
    """All kinds run at once, because each takes the whole grace."""
    limits = {"timeout": Duration(seconds=6)}
    names = {new_id("hostile"): kind for kind in KINDS}
    for name, kind in names.items():
        await shared.start(name, program(KINDS[kind]), **limits)
    outsides = []
    for name in names:
        await shared.watch(name, until=b"ready")
        outsides.append(Outside(shared, name))
    for name, kind in names.items():
        end = await shared.end(name)
        assert end.reason == "TIMED_OUT", kind
        check_end(end, BUBBLEWRAP)
    for outside in outsides:
        outside.check_nothing_is_left()


@pytest.mark.parametrize("tier", [BUBBLEWRAP, pytest.param(NONE, marks=pytest.mark.slow)])
async def test_a_thousand_processes_are_gone_as_soon_as_one(shared: Client, tier: int) -> None:
    name = new_id("thousand")
    await shared.start(name, program(THOUSAND), sandbox_tier=tier)
    await shared.watch(name, until=b"ready")
    outside = Outside(shared, name)
    assert len(outside.marked()) > 1000
    began = time.monotonic()
    await shared.stop(name, 0)
    end = await shared.end(name)
    print(f"{time.monotonic() - began:.3f} s")  # for information: bench/executions measures it
    check_end(end, tier)
    outside.check_nothing_is_left()
