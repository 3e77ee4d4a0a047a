"""A program's terminal: any number of callers can type on it from anywhere, also after the service was killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.agent.v1.agent_pb2 import CommandEngine
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import FailedPrecondition, Invalid
from services.common.ids import new_id
from tests.integration.execution.service import Client, State, running
from tests.integration.execution.test_contract import refused

TIERS = (sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE)
ECHO = 'stty -echo; echo ready; while read line; do echo "<$line>"; done'


async def start(client: Client, name: str, line: str, **fields: object) -> None:
    spec = client.service.spec(line, **fields)
    spec.agent.command.terminal = True
    await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), wait_for_ready=True)


class Attached:
    """One caller attached to a terminal."""

    def __init__(self, client: Client, name: str) -> None:
        self.call = client.stub.AttachExecution(wait_for_ready=True)
        self.name = name
        self.taken = 0

    async def __aenter__(self) -> Self:
        await self.call.write(pb.AttachExecutionRequest(execution_id=self.name))
        assert (await self.call.read()).taken_bytes == 0
        return self

    async def type(self, data: bytes) -> None:
        await self.call.write(pb.AttachExecutionRequest(input=data))
        self.taken += len(data)
        while (await self.call.read()).taken_bytes < self.taken:
            pass

    async def resize(self, rows: int, columns: int) -> None:
        await self.call.write(pb.AttachExecutionRequest(size=pb.TerminalSize(rows=rows, columns=columns)))
        await self.call.read()

    async def __aexit__(self, *_: object) -> None:
        await self.call.done_writing()
        self.call.cancel()


@pytest.mark.parametrize("tier", TIERS)
async def test_a_program_has_a_terminal_of_its_own(shared: Client, tier: int) -> None:
    name = new_id("tty")
    await start(shared, name, f"tty -s && stty size && test -t 1 -a -t 2 && : >/dev/tty && {ECHO}", sandbox_tier=tier)
    await shared.watch(name, until=b"ready")
    async with Attached(shared, name) as one:
        await one.type(b"hello\r")
        await shared.watch(name, until=b"<hello>")
        await one.type(b"\x04")
        end = await shared.end(name)
    assert (end.state, end.exit_code, end.processes_left) == (State.STATE_SUCCEEDED, 0, 0)
    seen = await shared.watch(name)
    assert seen.output == b"24 80\r\nready\r\n<hello>\r\n"


async def test_keys_and_sizes_reach_the_program_as_a_person_expects(shared: Client) -> None:
    name = new_id("keys")
    await start(
        shared,
        name,
        "trap 'stty size' WINCH; trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.01; done",
    )
    await shared.watch(name, until=b"ready")
    async with Attached(shared, name) as one:
        await one.resize(50, 132)
        await shared.watch(name, until=b"50 132")
        await one.type(b"\x03")
        while not (answer := await one.call.read()).HasField("end"):
            pass
    assert answer.end.exit_code == 7
    error = await refused(shared.stub.AttachExecution(attach_to(name)).read())
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "EXECUTION_STATE"


async def attach_to(name: str, *more: pb.AttachExecutionRequest) -> AsyncIterator[pb.AttachExecutionRequest]:
    yield pb.AttachExecutionRequest(execution_id=name)
    for request in more:
        yield request


async def test_several_type_at_once_each_in_order_and_one_may_leave(shared: Client) -> None:
    name = new_id("many")
    await start(shared, name, ECHO)
    await shared.watch(name, until=b"ready")

    async def work(who: str) -> None:
        async with Attached(shared, name) as one:
            for number in range(20):
                await one.type(f"{who}{number}\r".encode())

    await asyncio.gather(*(work(who) for who in "abc"))
    async with Attached(shared, name) as last:
        await last.type(b"\x04")
        await shared.end(name)
    lines = (await shared.watch(name)).output.decode().split("\r\n")
    for who in "abc":
        assert [line for line in lines if line.startswith(f"<{who}")] == [f"<{who}{number}>" for number in range(20)]


@pytest.mark.slow
async def test_the_terminal_outlives_the_service(directory: Path) -> None:
    async with running(directory) as client:
        await start(client, "tty", ECHO)
        await client.watch("tty", until=b"ready")
        async with Attached(client, "tty") as one:
            await one.type(b"before\r")
            client.service.kill()
        client.service.start()
        async with Attached(client, "tty") as again:
            await again.type(b"after\r\x04")
            end = await client.end("tty")
        assert end.state == State.STATE_SUCCEEDED
        assert (await client.watch("tty")).output == b"ready\r\n<before>\r\n<after>\r\n"


async def test_a_program_that_reads_nothing_holds_up_only_who_types(shared: Client) -> None:
    name = new_id("deaf")
    await start(shared, name, "stty raw -echo; echo ready; sleep 60")
    await shared.watch(name, until=b"ready")
    flood = [pb.AttachExecutionRequest(input=b"x" * 65536)] * 64
    call = shared.stub.AttachExecution(attach_to(name, *flood))

    async def collect() -> list[int]:
        return [answer.taken_bytes async for answer in call]

    collecting = asyncio.create_task(collect())
    await shared.stop(name, 0)
    assert (await shared.end(name)).state == State.STATE_CANCELLED
    assert max(await collecting) < 64 * 65536, "it must not be kept in memory"


async def test_what_cannot_be_attached_to_is_said(shared: Client) -> None:
    name = new_id("pipe")
    await shared.start(name, "sleep 60")
    error = await refused(shared.stub.AttachExecution(attach_to(name)).read())
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "NO_TERMINAL"
    await shared.stop(name, 0)
    spec = shared.service.spec("true", prompt=b"by standard input")
    spec.agent.command.MergeFrom(CommandEngine(terminal=True, prompt_delivery=CommandEngine.PROMPT_DELIVERY_STDIN))
    error = await refused(shared.stub.StartExecution(pb.StartExecutionRequest(execution_id="tty", spec=spec)))
    assert isinstance(error, Invalid)
    assert [field for field, _ in error.violations] == ["spec.agent.command.terminal"]
