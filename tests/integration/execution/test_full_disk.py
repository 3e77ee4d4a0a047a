"""A full disk stops logs, and nothing else: agents wait or go on, end, are stopped, and each line is there once."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.ids import new_id
from services.common.room import is_out_of_room
from services.execution.rundir.directory import RunDirectory
from tests.integration.execution.model import of, playing
from tests.integration.execution.service import Client, State, running
from tests.integration.execution.test_attaching import Attached
from tests.integration.execution.test_contract import refused
from tests.kit.disks import fill, make_room, needs_mount, small_disk, use_up_inodes
from tests.kit.replay import bash

pytestmark = [needs_mount, pytest.mark.slow]

MIB = 1 << 20
KINDS = {"bytes": fill, "inodes": use_up_inodes}


@asynccontextmanager
async def on_a_small_disk(directory: Path, size: str, **settings: str) -> AsyncIterator[tuple[Client, Path]]:
    """Run the service on a disk of its own, of this size."""
    with small_disk(directory / "home", size=size, inodes=400) as disk:
        async with running(directory, **{"DISK_RESERVE_BYTES": "0", **settings}) as client:
            yield client, disk


def numbers(count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, count + 1))


def has_stopped(client: Client, name: str) -> Callable[[], bool]:
    """Return what says whether a log has not grown since it was asked before."""
    events, before = client.service.run_directory(name) / "events", -1

    def stopped() -> bool:
        nonlocal before
        size, before = before, events.stat().st_size
        return size == before > MIB // 2

    return stopped


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.3)


async def test_a_flood_waits_and_a_quiet_agent_does_not(directory: Path) -> None:
    """The flood leaves free what the service's databases and logs need, and is stopped while it waits."""
    async with on_a_small_disk(directory, "32m", DISK_RESERVE_BYTES=str(12 * MIB)) as (client, disk):
        flood, quiet = new_id("flood"), new_id("quiet")
        await client.start(quiet, "echo ready; until [ -e go ]; do sleep 0.02; done; seq 1 1000")
        await client.watch(quiet, until=b"ready")
        await client.start(flood, "seq 1 100000000")
        await until(has_stopped(client, flood))
        assert shutil.disk_usage(disk).free >= 5 * MIB
        (client.service.workspace / "go").touch()
        assert (await client.end(quiet)).state == State.STATE_SUCCEEDED
        assert (await client.get(flood)).state == State.STATE_RUNNING
        await client.stop(flood, 0)
        end = await client.end(flood)
        assert (end.state, end.processes_left) == (State.STATE_CANCELLED, 0)
        seen = await client.watch(flood)
        seen.check_whole()
        assert len(seen.output) > MIB
        assert seen.output == numbers(3_000_000)[: len(seen.output)]


@pytest.mark.parametrize("kind", KINDS)
async def test_agents_go_on_end_and_are_stopped_on_a_disk_without_any_room(directory: Path, kind: str) -> None:
    async with on_a_small_disk(directory, "48m") as (client, disk):
        names = {name: new_id(name) for name in ("flood", "quiet", "stopped", "late")}
        go = "until [ -e go ]; do sleep 0.02; done; "
        await client.start(names["quiet"], f"echo ready; {go} seq 1 1000")
        await client.start(names["stopped"], "echo ready; sleep 999")
        await client.start(names["late"], "echo ready; sleep 999", timeout=Duration(seconds=4))
        await client.start(names["flood"], f"echo ready; {go} seq 1 3000000")
        for name in names.values():
            await client.watch(name, until=b"ready")
        ballast = KINDS[kind](disk)
        (client.service.workspace / "go").touch()

        await client.stop(names["stopped"], 0)
        ends = {name: await client.end(names[name]) for name in ("quiet", "stopped", "late")}
        assert {name: end.state for name, end in ends.items()} == {
            "quiet": State.STATE_SUCCEEDED,
            "stopped": State.STATE_CANCELLED,
            "late": State.STATE_FAILED,
        }
        assert ends["late"].reason == "TIMED_OUT"
        assert {end.processes_left for end in ends.values()} == {0}
        if kind == "bytes":
            await until(has_stopped(client, names["flood"]))
            assert (await client.get(names["flood"])).state == State.STATE_RUNNING
        client.service.kill()
        make_room(ballast)
        client.service.start()

        assert (await client.end(names["flood"])).state == State.STATE_SUCCEEDED
        for name, output in {"quiet": numbers(1000), "flood": numbers(3000000)}.items():
            seen = await client.watch(names[name])
            seen.check_whole()
            assert seen.output == b"ready\n" + output
        assert {(await client.get(names[name])).state for name in ("quiet", "stopped", "late")} == {
            end.state for end in ends.values()
        }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_runner_is_told_on_a_disk_without_any_room(directory: Path, kind: str) -> None:
    async with on_a_small_disk(directory, "20m") as (client, disk):
        name = new_id("lost")
        await client.start(name, "echo ready; sleep 999")
        await client.watch(name, until=b"ready")
        ballast = KINDS[kind](disk)
        holder = RunDirectory(client.service.run_directory(name)).holder()
        assert holder
        os.kill(holder, signal.SIGKILL)
        end = await client.end(name)
        assert (end.state, end.reason) == (State.STATE_FAILED, "RUNNER_LOST")
        client.service.kill()
        make_room(ballast)
        client.service.start()
        assert (await client.end(name)).reason == "RUNNER_LOST"
        (await client.watch(name)).check_whole()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_start_without_room_is_refused_and_leaves_nothing(directory: Path, kind: str) -> None:
    async with on_a_small_disk(directory, "20m") as (client, disk):
        ballast = KINDS[kind](disk)
        specs = {new_id("start"): client.service.spec("echo x", prompt=given) for given in ("", "given " * 1000)}
        specs[terminal := new_id("tty")] = client.service.spec("tty -s && echo x")
        specs[terminal].agent.command.terminal = True

        def start(name: str) -> object:
            return client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=specs[name]))

        for name in specs:
            assert is_out_of_room(await refused(start(name)))
            assert not client.service.run_directory(name).exists()
        make_room(ballast)
        for name in specs:
            await start(name)
            assert (await client.end(name)).state == State.STATE_SUCCEEDED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_terminal_goes_on_when_its_disk_has_room(directory: Path, kind: str) -> None:
    """Nothing of what is shown is lost, nor of what is typed meanwhile, by whomever."""
    async with on_a_small_disk(directory, "48m") as (client, disk):
        name = new_id("tty")
        spec = client.service.spec('stty -echo; echo ready; read go; seq 1 400000; while read x; do echo "<$x>"; done')
        spec.agent.command.terminal = True
        await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec))
        await client.watch(name, until=b"ready")
        ballast = KINDS[kind](disk)
        async with Attached(client, name) as one:
            await one.type(b"go\r")
        if kind == "bytes":
            await until(has_stopped(client, name))
        async with Attached(client, name) as other:
            await other.resize(50, 132)
            await other.type(b"hello\r")
        make_room(ballast)
        await client.watch(name, until=b"<hello>")
        async with Attached(client, name) as last:
            await last.type(b"\x04")
        assert (await client.end(name)).state == State.STATE_SUCCEEDED
        seen = await client.watch(name)
    seen.check_whole()
    shown = b"ready\n" + numbers(400000) + b"<hello>\n"
    assert seen.output == shown.replace(b"\n", b"\r\n")


# What a container engine says whose own disk is full, by the first word of what it was asked.
ENGINE = """#!/bin/sh
case $1 in
  info) echo '{"host": {"security": {"rootless": false, "seccompEnabled": true}}, "version": {"Version": "5.0.0"}}' ;;
  *) [ -e "$0.full" ] && case $1 in %s) echo "Error: writing blob: no space left on device" >&2; exit 125 ;; esac ;;
esac
"""


@pytest.mark.parametrize("when", ["image", "create", "start"])
async def test_a_container_engine_without_room_is_a_lack_of_room(
    directory: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    (directory / "bin").mkdir()
    program = directory / "bin" / "podman"
    program.write_text(ENGINE % when)
    program.chmod(0o755)
    program.with_name("podman.full").touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    settings = {"SANDBOX_TIER": "container", "CONTAINER_ENGINE": "podman", "CONTAINER_IMAGE": "x:1"}
    name = new_id("contained")
    async with running(directory, **settings) as client:
        spec = client.service.spec("echo x", sandbox_tier=sandbox_pb2.SANDBOX_TIER_CONTAINER)
        call = client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec))
        if when == "image":
            assert is_out_of_room(await refused(call))
            return
        await call
        end = await client.end(name)
    assert (end.state, end.reason, end.HasField("exit_code")) == (State.STATE_FAILED, "DISK_FULL", False)
    assert "no space left on device" in end.message


@pytest.mark.parametrize("end", ["goes on", "is stopped"])
async def test_a_model_does_nothing_that_has_no_room_to_be_told(directory: Path, end: str) -> None:
    used = {"input": 10, "output": 1}
    replies = [
        {"text": "One.", "tools": [bash("until [ -e go ]; do sleep 0.02; done; seq 1 20000")], "usage": used},
        {"text": "Two.", "tools": [bash("echo 2 >> file")], "usage": used},
        {"text": "Done.", "usage": used},
    ]
    name = new_id("model")
    with small_disk(directory / "home", size="20m") as disk:
        async with playing(directory, replies, DISK_RESERVE_BYTES="0") as model:
            await model.start(name)
            await model.until(name, "tool_call")
            ballast = fill(disk)
            (model.client.service.workspace / "go").touch()
            await asyncio.sleep(1)
            assert not (model.client.service.workspace / "file").exists()
            if end == "is stopped":
                await model.client.stop(name, 0)
                assert (await model.client.end(name)).state == State.STATE_CANCELLED
                ballast.unlink()
                (await model.client.watch(name)).check_whole()
                return
            ballast.unlink()
            seen = await model.client.watch(name)
    seen.check_whole()
    assert seen.end.state == State.STATE_SUCCEEDED
    assert (seen.end.model_use.tokens, seen.end.model_use.turns) == (33, 3)
    assert [text.text for text in of(seen, "text")] == ["One.", "Two.", "Done."]
    assert (model.client.service.workspace / "file").read_text() == "2\n"
