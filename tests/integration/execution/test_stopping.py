"""Stopping an execution, politely at first and then by force, leaves nothing behind."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2

from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.integration.execution.service import Client, State, running
from tests.kit import processes

TIERS = (sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE)


def of(name: str) -> dict[int, str]:
    return processes.with_environment({"BOATYARD_EXECUTION_ID": name})


@pytest.mark.parametrize("tier", TIERS)
async def test_an_agent_may_say_goodbye(shared: Client, tier: int) -> None:
    name = new_id("polite")
    line = "trap 'echo bye; exit 3' TERM; setsid -f sleep 999; echo ready; while :; do sleep 0.02; done"
    await shared.start(name, line, sandbox_tier=tier)
    await shared.watch(name, until=b"ready")
    assert len(of(name)) >= 2
    await shared.stop(name, 20)
    seen = await shared.watch(name)
    seen.check_whole()
    assert seen.output.endswith(b"bye\n")
    assert (seen.end.state, seen.end.exit_code, seen.end.processes_left) == (State.STATE_CANCELLED, 3, 0)
    assert of(name) == {}


@pytest.mark.parametrize("tier", TIERS)
async def test_an_agent_that_will_not_go_is_ended_after_its_grace(shared: Client, tier: int) -> None:
    name = new_id("stubborn")
    line = "trap '' TERM HUP INT; setsid -f sh -c 'trap \"\" TERM; sleep 999' & echo ready; while :; do sleep 1; done"
    await shared.start(name, line, sandbox_tier=tier)
    await shared.watch(name, until=b"ready")
    began = time.monotonic()
    await shared.stop(name, 0.4)
    end = await shared.end(name)
    assert 0.35 < time.monotonic() - began < 0.4 + 2.0
    assert (end.state, end.signal, end.processes_left) == (State.STATE_CANCELLED, 9, 0)
    assert of(name) == {}


async def test_a_second_call_shortens_the_grace(shared: Client) -> None:
    name = new_id("stubborn")
    await shared.start(name, "trap '' TERM; echo ready; while :; do sleep 1; done")
    await shared.watch(name, until=b"ready")
    await shared.stop(name, 300)
    assert not (await shared.get(name)).HasField("end_time"), "the first call leaves it its grace"
    await shared.stop(name, 0)
    assert (await shared.end(name)).state == State.STATE_CANCELLED


async def test_a_stop_right_after_the_start_is_not_lost(shared: Client) -> None:
    names = [new_id("brief") for _ in range(6)]
    for delay, name in enumerate(names):
        await shared.start(name, "sleep 60")
        await asyncio.sleep(delay * 0.01)
        await shared.stop(name, 5)
    for name in names:
        end = await shared.end(name)
        assert end.state == State.STATE_CANCELLED, end
        assert end.end_time.ToNanoseconds() - end.create_time.ToNanoseconds() < 4e9, "the grace was not needed"
        assert not (shared.service.run_directory(name) / "plan").exists(), "its secrets are forgotten"
        assert of(name) == {}


async def test_what_has_ended_cannot_be_stopped(shared: Client) -> None:
    name = new_id("short")
    await shared.run(name, "true")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared.stop(name, 0)
    error = service_error(caught.value)
    assert isinstance(error, FailedPrecondition)
    assert (error.reason, error.metadata["state"]) == ("EXECUTION_STATE", "SUCCEEDED")


@pytest.mark.slow
async def test_a_stop_goes_on_while_the_service_is_away(directory: Path) -> None:
    async with running(directory) as client:
        await client.start("run", "trap '' TERM; echo ready; while :; do sleep 1; done")
        await client.watch("run", until=b"ready")
        await client.stop("run", 0.5)
        client.service.kill()
        client.service.start()
        assert (await client.end("run")).state == State.STATE_CANCELLED
        assert of("run") == {}
