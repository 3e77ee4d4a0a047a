"""Limits on all processes of an execution together, with and without control groups."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.ids import new_id
from tests.integration.execution.service import Client, State, running
from tests.kit import processes

BUBBLEWRAP, NONE = sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE
TIERS = [BUBBLEWRAP, pytest.param(NONE, marks=pytest.mark.slow)]
MB = 1 << 20


@pytest_asyncio.fixture(scope="module", params=["groups", pytest.param("sampled", marks=pytest.mark.slow)])
async def limited(request: pytest.FixtureRequest, shared: Client) -> AsyncIterator[Client]:
    """A service that makes control groups if it can on this machine, and one that measures in /proc."""
    if request.param == "groups":
        yield shared
        return
    directory = Path(tempfile.mkdtemp(prefix="sampled-"))
    async with running(directory, CONTROL_GROUPS="false") as client:
        yield client
    shutil.rmtree(directory)


@pytest.mark.parametrize("tier", TIERS)
async def test_memory_is_that_of_all_processes_together(limited: Client, tier: int) -> None:
    name = new_id("hungry")
    code = (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: break\n"
        "held = []\n"
        "for _ in range(60):\n"
        "    held.append(b'x' * (1 << 20)); time.sleep(0.01)\n"
        "time.sleep(60)"
    )
    limits = {"memory_bytes": 150 * MB}
    end = await limited.run(name, ["python3", "-c", code], **limits, sandbox_tier=tier)
    assert (end.state, end.reason, end.processes_left) == (State.STATE_FAILED, "MEMORY_LIMIT", 0), end.message
    assert f"{150 * MB} bytes (memory_bytes)" in end.message
    assert end.vitals.memory_peak_bytes > 100 * MB
    assert processes.with_environment({"BOATYARD_EXECUTION_ID": name}) == {}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "line", ["while :; do sleep 60 & done", "while :; do sleep 60 & done 2>/dev/null || :; sleep 60"]
)
async def test_processes_are_limited(limited: Client, tier: int, line: str) -> None:
    name = new_id("many")
    end = await limited.run(name, line, processes=40, sandbox_tier=tier)
    assert (end.state, end.reason, end.processes_left) == (State.STATE_FAILED, "PROCESS_LIMIT", 0), end.message
    assert "than 40 (processes)" in end.message
    assert processes.with_environment({"BOATYARD_EXECUTION_ID": name}) == {}


async def test_time_on_processors_is_that_of_all_processes_together(limited: Client) -> None:
    line = "for i in 1 2 3 4; do (while :; do :; done) & done; wait"
    end = await limited.run(new_id("busy"), line, cpu_seconds=1)
    assert (end.reason, end.processes_left) == ("CPU_LIMIT", 0), end.message
    assert "1 s on processors (cpu_seconds)" in end.message
    assert end.vitals.cpu_seconds >= 1


@pytest.mark.parametrize("tier", TIERS)
async def test_a_workspace_that_grows_too_much_is_noticed(limited: Client, tier: int) -> None:
    name = new_id("large")
    line = f"while :; do head -c 4000000 /dev/zero >> {name}; sleep 0.01; done"
    end = await limited.run(name, line, disk_bytes=40_000_000, sandbox_tier=tier)
    (limited.service.workspace / name).unlink()
    assert (end.reason, end.processes_left) == ("DISK_LIMIT", 0), end.message
    assert "40000000 bytes (disk_bytes)" in end.message


async def test_files_without_content_make_a_workspace_grow_too(limited: Client) -> None:
    name = new_id("many")
    line = f"mkdir {name} && cd {name} && seq 50000 | xargs touch; sleep 60"
    end = await limited.run(name, line, disk_bytes=16 << 20)
    shutil.rmtree(limited.service.workspace / name)
    assert (end.reason, end.processes_left) == ("DISK_LIMIT", 0), end.message
    assert f"{16 << 20} bytes (disk_bytes); each file counts as 1 KiB" in end.message


@pytest.mark.parametrize(
    "place", ["$HOME", *(pytest.param(place, marks=pytest.mark.slow) for place in ("/tmp", "/dev/shm", "$HOME/.c/a"))]
)
async def test_scratch_space_that_is_full_is_why_an_agent_failed(limited: Client, place: str) -> None:
    # It stays for longer than there is between two looks.
    line = f"mkdir -p {place}; head -c 4000000 /dev/zero > {place}/big || {{ sleep 2; exit 3; }}"
    end = await limited.run(new_id("full"), line, scratch_bytes=MB)
    assert (end.reason, end.exit_code) == ("SCRATCH_LIMIT", 3), end.message
    assert f"{MB} bytes each (scratch_bytes)" in end.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("head -c 4000000 /dev/zero > /tmp/big; sleep 2; true", ""),
        ("head -c 400000 /dev/zero > /tmp/a; sleep 2; exit 3", "AGENT_FAILED"),
    ],
    ids=["full, and no failure", "not full"],
)
async def test_scratch_space_is_a_reason_only_of_a_failure(limited: Client, line: str, reason: str) -> None:
    assert (await limited.run(new_id("scratch"), line, scratch_bytes=MB)).reason == reason


async def test_scratch_space_is_at_most_the_machines_and_the_agent_is_told(limited: Client) -> None:
    name = new_id("told")
    line = "echo $BOATYARD_LIMIT_SCRATCH_BYTES; df -B1 --output=size /tmp | tail -1"
    await limited.start(name, line, scratch_bytes=1 << 50)
    told, size = (await limited.watch(name)).output.decode().split()
    assert told == size == str(2 << 30)


async def test_an_agent_is_told_its_limits(limited: Client) -> None:
    name = new_id("told")
    limits = {"memory_bytes": 512 * MB, "processes": 77, "cpu_seconds": 30, "output_bytes": 5000}
    limits["idle_timeout"] = Duration(seconds=20)
    await limited.start(name, "env | grep ^BOATYARD_LIMIT_ | sort", **limits)
    seen = await limited.watch(name)
    limit_variables = dict(line.split("=", 1) for line in seen.output.decode().splitlines())
    assert limit_variables.pop("BOATYARD_LIMIT_DISK_BYTES")
    assert limit_variables == {
        "BOATYARD_LIMIT_CPU_SECONDS": "30",
        "BOATYARD_LIMIT_IDLE_TIMEOUT_SECONDS": "20",
        "BOATYARD_LIMIT_MEMORY_BYTES": str(512 * MB),
        "BOATYARD_LIMIT_OUTPUT_BYTES": "5000",
        "BOATYARD_LIMIT_PROCESSES": "77",
        "BOATYARD_LIMIT_SCRATCH_BYTES": str(2 << 30),
        "BOATYARD_LIMIT_TIMEOUT_SECONDS": "3600",
    }
    assert seen.end.state == State.STATE_SUCCEEDED


async def test_a_limit_that_is_not_reached_changes_nothing(limited: Client) -> None:
    """Tried with children that come and go, and a sibling execution that is ended for its memory."""
    line = "for i in $(seq 100); do /bin/true; done; echo done; exit 3"
    limits = {"memory_bytes": 200 * MB, "processes": 20, "cpu_seconds": 60, "disk_bytes": MB}
    name = new_id("modest")
    await limited.start(name, line, **limits)
    hungry = "python3 -c 'x = bytearray(300 << 20)'"
    assert (await limited.run(new_id("hungry"), hungry, **limits)).reason == "MEMORY_LIMIT"
    seen = await limited.watch(name)
    assert (seen.output, seen.end.reason, seen.end.exit_code) == (b"done\n", "AGENT_FAILED", 3)


@pytest.mark.slow
async def test_vitals_are_told_while_they_change(limited: Client) -> None:
    name = new_id("alive")
    await limited.start(name, "python3 -c 'x = b\"x\" * (50 << 20)\nwhile True: pass'")
    vitals = []
    request = pb.WatchEventsRequest(execution_id=name, follow=True)
    call = limited.stub.WatchEvents(request)
    async for message in call:
        vitals += [event.vitals for event in message.events if event.HasField("vitals")]
        if vitals:
            break
    call.cancel()
    first = vitals[0]
    assert first.cpu_seconds > 0
    assert first.memory_peak_bytes >= first.memory_bytes > 50 * MB
    assert 1 <= first.processes <= 3
    await limited.stop(name, 0)
    assert (await limited.end(name)).vitals.cpu_seconds >= first.cpu_seconds


async def test_what_forked_processes_share_counts_once(limited: Client) -> None:
    code = "import os, time\nheld = b'x' * (60 << 20)\nfor _ in range(9):\n    if os.fork() == 0: break\ntime.sleep(1)"
    limits = {"memory_bytes": 250 * MB}
    end = await limited.run(new_id("sharing"), ["python3", "-c", code], **limits)
    assert end.state == State.STATE_SUCCEEDED, end.message


@pytest.mark.parametrize("tier", TIERS)
async def test_what_is_left_of_a_program_that_failed_is_not_its_reason(limited: Client, tier: int) -> None:
    """Children that fork while we end them are refused more processes, which is our doing."""
    line = "setsid -f sh -c 'while :; do /bin/true; done' >/dev/null 2>&1; sleep 0.2; exit 3"
    end = await limited.run(new_id("left"), line, sandbox_tier=tier)
    assert (end.reason, end.exit_code, end.processes_left) == ("AGENT_FAILED", 3, 0), end.message
