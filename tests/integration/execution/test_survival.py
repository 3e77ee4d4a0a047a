"""Kills of the service, of a runner, of viewers: what was written stays complete, and appears once."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import Unavailable
from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.integration.execution.service import Client, Service, State, running
from tests.kit import processes

RUN = new_id("run")

BYTES = int(os.environ.get("BOATYARD_TEST_OUTPUT_BYTES", "20_000_000"))


def numbers(count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, count + 1))


def runner_of(service: Service, execution_id: str) -> int:
    """Return the pid that holds the run's lock, from /proc/locks."""
    inode = (service.run_directory(execution_id) / "lock").stat().st_ino
    lock = re.search(rf"POSIX\s+ADVISORY\s+WRITE\s+(\d+)\s+\S+:{inode}\s", Path("/proc/locks").read_text())
    assert lock
    return int(lock[1])


@pytest.mark.slow
async def test_a_flood_arrives_byte_for_byte_at_every_viewer(directory: Path) -> None:
    count = BYTES // 8
    expected = numbers(count)
    async with running(directory) as client:
        await client.start("flood", f"seq 1 {count}")
        early = [asyncio.create_task(client.watch("flood")) for _ in range(3)]
        middle = await client.watch("flood", first=20)
        middle.check_whole(first=20)
        for seen in [await task for task in early] + [await client.watch("flood")]:
            seen.check_whole()
            assert seen.output == expected
        assert middle.output == seen.output[sum(len(event.output.data) for event in seen.events[:19]) :]


async def test_the_agent_does_not_notice_that_the_service_was_killed(directory: Path) -> None:
    async with running(directory) as client:
        wait = "until [ -e go-{0} ]; do seq 1 100; sleep 0.01; done; echo gone {0}; "
        await client.start(RUN, "seq 1 20000; " + "".join(wait.format(number) for number in (1, 2)) + "exit 5")
        before = await client.watch(RUN, until=b"20000\n")
        for number in (1, 2):
            client.service.kill()
            (client.service.workspace / f"go-{number}").touch()
            client.service.start()
            await client.stub.ListExecutions(pb.ListExecutionsRequest(), wait_for_ready=True, timeout=60)
        seen = await client.watch(RUN)
        seen.check_whole()
        assert seen.events[: len(before.events)] == before.events
        hundred = numbers(100)
        parts = re.fullmatch(b"%b((?:%b)*)gone 1\n((?:%b)*)gone 2\n" % (numbers(20000), hundred, hundred), seen.output)
        assert parts, "the output is not what the program wrote"
        assert (seen.end.state, seen.end.exit_code) == (State.STATE_FAILED, 5)


@pytest.mark.slow
async def test_what_ends_while_the_service_is_away_is_known_afterwards(directory: Path) -> None:
    async with running(directory) as client:
        await client.start(RUN, "echo ready; sleep 0.3; exit 9")
        await client.watch(RUN, until=b"ready")
        client.service.kill()
        async with asyncio.timeout(10):
            while processes.with_environment({"BOATYARD_EXECUTION_ID": RUN}):
                await asyncio.sleep(0.02)
        client.service.start()
        end = await client.end(RUN)
        assert (end.exit_code, end.processes_left) == (9, 0)


@pytest.mark.slow
async def test_a_caller_that_goes_away_in_the_midst_of_a_start_loses_nothing(shared: Client) -> None:
    """A killed gateway does so: when it runs again, it repeats the call, and follows the execution to its end."""
    for milliseconds in range(0, 24, 2):
        name = new_id("left")
        first = asyncio.ensure_future(shared.start(name, "echo once"))
        await asyncio.sleep(milliseconds / 1000)  # at any point of the start
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await shared.start(name, "echo once")
        seen = await shared.watch(name)
        assert (seen.output, seen.end.state) == (b"once\n", State.STATE_SUCCEEDED), milliseconds


@pytest.mark.slow
async def test_what_was_accepted_and_never_begun_is_begun_by_the_next_life(directory: Path) -> None:
    async with running(directory) as client:
        # No runner can begin, as if the service were killed between the record and the start.
        stopped = await fork_server(client.service)
        os.kill(stopped, signal.SIGSTOP)
        await client.start(RUN, "echo begun")
        client.service.kill()
        os.kill(stopped, signal.SIGKILL)
        assert (client.service.run_directory(RUN) / "plan").exists()
        client.service.start()
        assert (await client.watch(RUN)).output == b"begun\n"
        assert (await client.end(RUN)).state == State.STATE_SUCCEEDED


async def test_a_killed_fork_server_costs_nobody_anything(directory: Path) -> None:
    first, second = new_id("run"), new_id("run")
    async with running(directory) as client:
        await client.start(first, "echo ready; sleep 999")
        await client.watch(first, until=b"ready")
        killed = await fork_server(client.service)
        os.kill(killed, signal.SIGKILL)
        assert (await client.run(second, "echo fine")).state == State.STATE_SUCCEEDED
        assert await fork_server(client.service) != killed
        assert not (await client.get(first)).HasField("end_time")
        await client.stop(first, 0)
        assert (await client.end(first)).state == State.STATE_CANCELLED


@pytest.mark.slow
async def test_a_service_that_ends_leaves_its_runners_and_no_fork_server(directory: Path) -> None:
    async with running(directory) as client:
        await client.start(RUN, "echo ready; sleep 999")
        await client.watch(RUN, until=b"ready")
        server = await fork_server(client.service)
        runner = runner_of(client.service, RUN)
        client.service.kill()
        async with asyncio.timeout(10):
            while server in runners(client.service):
                await asyncio.sleep(0.02)
        assert runners(client.service) == [runner]
        client.service.start()
        await client.watch(RUN, until=b"ready")
        await client.stop(RUN, 0)
        assert (await client.end(RUN)).state == State.STATE_CANCELLED


@pytest.mark.slow
async def test_a_service_that_is_killed_between_fork_and_answer_begins_the_run_once(directory: Path) -> None:
    async with running(directory) as client:
        server = await fork_server(client.service)
        os.kill(server, signal.SIGSTOP)
        await client.start(RUN, "echo begun >>begun; echo fine")
        client.service.kill()
        os.kill(server, signal.SIGCONT)  # it forks, and finds nobody to tell
        async with asyncio.timeout(10):
            while runners(client.service):
                await asyncio.sleep(0.02)
        assert "Traceback" not in (directory / "log").read_text()
        assert not (client.service.workspace / "begun").exists()
        client.service.start()
        assert (await client.end(RUN)).state == State.STATE_SUCCEEDED
        assert (client.service.workspace / "begun").read_text() == "begun\n"


def runners(service: Service) -> list[int]:
    return processes.matching("services.execution.runner", {"BOATYARD_HOME": str(service.home)})


async def fork_server(service: Service) -> int:
    """Return the process that runners are forked from: the one among them that holds no run's lock."""
    locks = {str(path) for path in (service.home / "execution" / "runs").glob("*/lock")}
    async with asyncio.timeout(10):
        while True:
            for pid in runners(service):
                with contextlib.suppress(FileNotFoundError):
                    if locks.isdisjoint(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()):
                        return pid
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "tier",
    [sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, pytest.param(sandbox_pb2.SANDBOX_TIER_NONE, marks=pytest.mark.slow)],
)
async def test_a_killed_runner_takes_its_agent_along_and_is_told(directory: Path, tier: int) -> None:
    async with running(directory) as client:
        await client.start(RUN, "setsid -f sleep 999; echo ready; sleep 999", sandbox_tier=tier)
        await client.watch(RUN, until=b"ready")
        os.kill(runner_of(client.service, RUN), signal.SIGKILL)
        seen = await client.watch(RUN)
        seen.check_whole()
        assert seen.output == b"ready\n"
        assert (seen.end.state, seen.end.reason, seen.end.processes_left) == (State.STATE_FAILED, "RUNNER_LOST", 0)
        assert processes.with_environment({"BOATYARD_EXECUTION_ID": RUN}) == {}


@pytest.mark.slow
async def test_a_lost_runner_costs_nobody_else_anything(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another data directory on the same machine may have an execution of the same id."""
    async with running(directory) as client, running(tmp_path_factory.mktemp("other")) as other:
        for each in (client, other):
            await each.start(RUN, "echo ready; sleep 999")
            await each.watch(RUN, until=b"ready")
        os.kill(runner_of(client.service, RUN), signal.SIGKILL)
        assert (await client.end(RUN)).reason == "RUNNER_LOST"
        assert not (await other.get(RUN)).HasField("end_time")
        await other.stop(RUN, 0)
        assert (await other.end(RUN)).state == State.STATE_CANCELLED


@pytest.mark.slow
async def test_runner_and_service_killed_at_once(directory: Path) -> None:
    async with running(directory) as client:
        await client.start(RUN, "echo ready; sleep 999")
        await client.watch(RUN, until=b"ready")
        runner = runner_of(client.service, RUN)
        client.service.kill()
        os.kill(runner, signal.SIGKILL)
        with (client.service.run_directory(RUN) / "events").open("ab") as events:
            events.write(b"torn")
        client.service.start()
        seen = await client.watch(RUN)
        seen.check_whole()
        assert seen.end.reason == "RUNNER_LOST"


@pytest.mark.slow
async def test_a_stalled_viewer_slows_nobody(directory: Path) -> None:
    count = 2_000_000
    async with running(directory) as client:
        await client.start("flood", f"seq 1 {count}")
        stalled = client.stub.WatchEvents(pb.WatchEventsRequest(execution_id="flood", follow=True))
        messages = aiter(stalled)
        first = await anext(messages)
        seen = await client.watch("flood")
        assert seen.output == numbers(count)
        rest = [event async for message in messages for event in message.events]
        assert b"".join(event.output.data for event in [*first.events, *rest]) == seen.output


async def test_a_service_that_stops_tells_viewers_where_to_go_on(directory: Path) -> None:
    async with running(directory) as client:
        await client.start(RUN, "echo one; sleep 1; echo two")
        call = client.stub.WatchEvents(pb.WatchEventsRequest(execution_id=RUN, follow=True))
        waiting = asyncio.create_task(_collect(call))
        await client.watch(RUN, until=b"one\n")
        await asyncio.to_thread(client.service.stop)
        before, error = await waiting
        client.service.start()
        assert isinstance(error, Unavailable)
        assert error.resume_from == len(before) + 1
        seen = await client.watch(RUN, first=error.resume_from)
        seen.check_whole(first=error.resume_from)
        assert b"".join(event.output.data for event in before) + seen.output == b"one\ntwo\n"


async def _collect(call) -> tuple[list, Exception | None]:
    events = []
    try:
        async for message in call:
            events += message.events
    except grpc.aio.AioRpcError as error:
        return events, service_error(error)
    return events, None


async def test_a_second_service_on_the_same_data_is_refused(shared: Client) -> None:
    variables = {"BOATYARD_HOME": str(shared.service.home)}
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.execution", env=os.environ | variables, stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await other.communicate()
    assert other.returncode == 78
    assert b"already serves" in complaint
