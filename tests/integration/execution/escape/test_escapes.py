"""A hostile agent on the real service gains nothing that is not its own, and nobody else notices that it tried."""

import asyncio
import ctypes
import json
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.home import Home
from services.common.ids import new_id
from services.supervisor.clients import is_serving
from tests.integration.execution.escape.attempts import ATTEMPTS, BOMBS, EPILOGUE, NASTY, PRELUDE
from tests.integration.execution.service import Client, State, running

SCRATCH = 16 << 20


@dataclass
class World:
    """What an agent may attack: a service with another execution at work, and a host with `things` on it."""

    client: Client
    neighbour: str
    things: dict[str, object] = field(default_factory=dict)

    async def run(self, name: str, code: str, **fields: object) -> tuple[bytes, pb.NodeExecution]:
        """Run an attempt to its end; return what it wrote, and the execution."""
        body = "".join(f"    {line}\n" for line in code.strip().splitlines())
        argv = ["python3", "-c", f"{PRELUDE}\ntry:\n{body}{EPILOGUE}"]
        variables = {"WORLD": json.dumps(self.things)}
        execution_id = new_id(name)
        await self.client.start(execution_id, argv, environment=variables, **fields)
        seen = await self.client.watch(execution_id)
        return seen.output, seen.end

    async def check_unharmed(self) -> None:
        """Check that the node serves, and that its other execution goes on."""
        assert await is_serving(Home(self.client.service.home), self.client.service.address)
        assert (await self.client.get(self.neighbour)).state == State.STATE_RUNNING
        at_work = await self.client.run(new_id("after"), "echo well")
        assert at_work.state == State.STATE_SUCCEEDED


@pytest_asyncio.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("escape")
    word, key = f"secret-{uuid.uuid4().hex}", uuid.uuid4().int & 0x7FFFFFFF
    token = f"token-{uuid.uuid4().hex}"
    other = directory / "other"
    other.mkdir()
    (other / "secret").write_text(word)
    shared = Path("/dev/shm", f"boatyard-{word}")
    shared.write_text(word)
    libc = ctypes.CDLL(None)
    segment = libc.shmget(key, 4096, 0o1666)
    host = subprocess.Popen(["sleep", "600"], env={"TOKEN": token})
    with (
        socket.create_server(("0.0.0.0", 0)) as port,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        path.bind(str(directory / "socket"))
        abstract.bind(f"\0{word}"[:100])
        path.listen()
        abstract.listen()
        try:
            async with running(directory, SCRATCH_BYTES=str(SCRATCH)) as client:
                neighbour = new_id("neighbour")
                await client.start(neighbour, "echo ready; while sleep 0.2; do echo tick; done")
                await client.watch(neighbour, until=b"ready")
                things = {
                    "other": str(other),
                    "home": str(client.service.home),
                    "port": port.getsockname()[1],
                    "addresses": _addresses(),
                    "sockets": [str(directory / "socket"), client.service.address.removeprefix("unix:")],
                    "abstract": word[:99],
                    "pid": host.pid,
                    "token": token[::-1],
                    "shared_memory": shared.name,
                    "key": key,
                }
                yield World(client, neighbour, things)
        finally:
            assert host.poll() is None, "a process of the host was ended"
            host.kill()
            host.wait()
            shared.unlink()
            libc.shmctl(segment, 0, None)
            subprocess.run(["rm", "-rf", directory], check=True)  # Python's own removal cannot remove what is in it


def _addresses() -> list[str]:
    """Return the machine's addresses, without loopback."""
    addresses = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return sorted(str(address) for address in addresses)


@pytest.mark.parametrize("name", ATTEMPTS)
async def test_nothing_is_gained(world: World, name: str) -> None:
    output, end = await world.run("escape", ATTEMPTS[name])
    assert b"GAINED" not in output, output.decode(errors="replace")
    assert b"TRIED" in output, output.decode(errors="replace")
    assert end.state == State.STATE_SUCCEEDED
    assert end.processes_left == 0


@pytest.mark.parametrize(
    "name", ["another workspace", "an environment in /proc", "the machine's ports", "a socket with a path"]
)
async def test_they_are_real_attempts_which_gain_something_without_a_sandbox(world: World, name: str) -> None:
    output, _ = await world.run("bare", ATTEMPTS[name], sandbox_tier=sandbox_pb2.SANDBOX_TIER_NONE)
    assert b"GAINED" in output, output.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("name", NASTY)
async def test_what_it_leaves_and_what_it_does_to_itself_harms_nobody(world: World, name: str) -> None:
    _, end = await world.run("nasty", NASTY[name])
    assert end.processes_left == 0
    await world.check_unharmed()


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_contained(world: World, name: str) -> None:
    code, limits = BOMBS[name]
    seconds = Duration(seconds=4)
    output, end = await world.run("bomb", f"{code}\ngained('everything')", **limits, timeout=seconds)
    assert b"GAINED" not in output
    assert end.processes_left == 0
    await world.check_unharmed()


async def test_the_node_is_as_it_was(world: World) -> None:
    await world.check_unharmed()
    await asyncio.gather(*(world.check_unharmed() for _ in range(3)))
