"""Shows that nothing is lost or doubled when the service is killed and restarted at random while many executions run.

BOATYARD_TEST_RESTARTS=20 BOATYARD_TEST_RUNNING=50 is the full test; fewer are enough to notice what breaks.
"""

import asyncio
import os
import random
import time
from pathlib import Path

import grpc
import pytest
from boatyard.execution.v1 import execution_pb2 as pb

from tests.integration.execution.service import Client, State, running

RESTARTS = int(os.environ.get("BOATYARD_TEST_RESTARTS", "5"))
RUNNING = int(os.environ.get("BOATYARD_TEST_RUNNING", "12"))

LINE = """
i=0
while [ ! -e stop ]; do i=$((i+1)); echo $i; sleep 0.05; done
echo last $i
exit {code}
"""


@pytest.mark.slow
@pytest.mark.timeout(120 + 20 * RESTARTS)
async def test_every_line_once_and_in_order_through_restarts(directory: Path) -> None:
    async with running(directory, MAX_EXECUTIONS=str(RUNNING)) as client:
        names = [f"run-{number}" for number in range(RUNNING)]
        for number, name in enumerate(names):
            await client.start(name, LINE.format(code=number % 100))
        viewers = [asyncio.create_task(follow(client, name)) for name in names[:4]]
        away = []
        for _ in range(RESTARTS):
            await asyncio.sleep(random.uniform(0, 1))
            client.service.kill()
            await asyncio.sleep(random.uniform(0, 0.3))
            began = time.monotonic()
            client.service.start()
            await client.stub.ListExecutions(pb.ListExecutionsRequest(), wait_for_ready=True, timeout=60)
            away.append(time.monotonic() - began)
        print(f"serving again with {RUNNING} running, in s:", *(f"{seconds:.2f}" for seconds in away))
        (client.service.workspace / "stop").touch()
        for number, name in enumerate(names):
            end = await client.end(name)
            code = number % 100
            assert (end.exit_code, end.processes_left) == (code, 0)
            assert end.state == (State.STATE_FAILED if code else State.STATE_SUCCEEDED)
            seen = await client.watch(name)
            seen.check_whole()
            check(seen.output)
        for name, viewer in zip(names, viewers, strict=False):
            assert await viewer == (await client.watch(name)).output, "a viewer that came back saw something else"


def check(output: bytes) -> None:
    *lines, last, nothing = output.split(b"\n")
    assert nothing == b""
    assert lines == [b"%d" % number for number in range(1, len(lines) + 1)]
    assert last == b"last %d" % len(lines)


async def follow(client: Client, name: str) -> bytes:
    """Watch to the end; after each interruption, go on where it was."""
    output, following = b"", 1
    while True:
        request = pb.WatchEventsRequest(execution_id=name, from_sequence=following, follow=True)
        try:
            async for message in client.stub.WatchEvents(request, wait_for_ready=True):
                for event in message.events:
                    assert event.sequence == following
                    following += 1
                    output += event.output.data
                if message.HasField("end"):
                    return output
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(0.05)
