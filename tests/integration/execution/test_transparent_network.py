"""Programs that know of no proxy: what they reach, and that nothing near is reached with network OPEN."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import socketserver
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.agent.v1 import sandbox_pb2

from services.common.ids import new_id
from tests.integration.execution.service import Client, State, running
from tests.integration.execution.test_network import decisions
from tests.integration.execution.test_survival import runner_of
from tests.kit import processes

OPEN, ALLOW_LIST = sandbox_pb2.NETWORK_OPEN, sandbox_pb2.NETWORK_ALLOW_LIST
NAME = socket.gethostname()
OWN_ADDRESS = socket.gethostbyname(NAME)

# Connects to each place, and says what it hears there.
HEAR = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 30) as connection:
            print(connection.recv(99).decode() or "nothing", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


class Greeter(socketserver.BaseRequestHandler):
    """Greets, and keeps the connection until its client closes it; one that sends `f` is flooded, and not heard."""

    def handle(self) -> None:
        self.request.sendall(b"hello")
        if self.request.recv(1) == b"f":
            with contextlib.suppress(OSError):
                while True:
                    self.request.sendall(bytes(65536))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1000

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients may break off."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server on all of this machine's addresses."""
    with Server(("0.0.0.0", 0), Greeter) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest_asyncio.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A service whose settings name this machine's own address."""
    async with running(tmp_path_factory.mktemp("transparent"), NETWORK_ALLOWED_ADDRESSES=f"{OWN_ADDRESS}/32") as client:
        yield client


async def hear(client: Client, *places: str, code: str = HEAR, **fields: object) -> tuple[list[str], list[tuple]]:
    """Return what a program heard, and what was decided about connections."""
    name = new_id("transparent")
    await client.start(name, ["python3", "-c", code, *places], **({"network": OPEN} | fields))
    seen = await client.watch(name)
    seen.check_whole()
    assert seen.end.state == State.STATE_SUCCEEDED, seen.output
    assert seen.end.processes_left == 0
    return seen.output.decode().splitlines(), decisions(seen)


async def test_with_network_open_a_program_that_knows_no_proxy_reaches_a_host_by_its_name(
    client: Client, port: int
) -> None:
    heard, decided = await hear(client, f"{NAME}:{port}")
    assert heard == ["hello"]
    assert (NAME, port, True, "") in decided


async def test_with_an_allow_list_it_reaches_what_is_in_the_list(client: Client, port: int) -> None:
    places = (f"{NAME}:{port}", f"{NAME}:1", "other.test:80", "192.0.2.1:80")
    heard, decided = await hear(client, *places, network=ALLOW_LIST, allowed_hosts=[f"{NAME}:{port}"])
    assert heard == ["hello", "ConnectionResetError", "gaierror", "ConnectionResetError"]
    assert [one for one in decided if one[1] != 53] == [
        (NAME, port, True, ""),
        (NAME, 1, False, "PORT_NOT_ALLOWED"),
        ("192.0.2.1", 80, False, "HOST_NOT_ALLOWED"),
    ]


async def test_with_network_open_nothing_that_is_near_is_reached(shared: Client, port: int) -> None:
    """Neither this machine nor its network, by name or by address, nor what only machines of a cloud reach."""
    near = [f"{NAME}:{port}", "169.254.169.254:80", "168.63.129.16:80", "10.0.0.1:22", "100.100.100.200:80"]
    near += [f"{address}:{port}" for address in _own_addresses()]
    heard, decided = await hear(shared, *near)
    assert set(heard) == {"ConnectionResetError"}
    assert {one[3] for one in decided if one[1] != 53} == {"ADDRESS_NOT_ALLOWED"}
    heard, _ = await hear(shared, *(f"{host}:{port}" for host in ("127.0.0.1", "localhost", "127.0.0.2", "::1")))
    assert set(heard) == {"ConnectionRefusedError"}, "these are the sandbox's own"


async def test_with_network_open_no_socket_without_a_path_is_the_machines(shared: Client) -> None:
    name = new_id("abstract")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        code = "import socket, sys\ntry: socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1])\n"
        heard, _ = await hear(shared, name, code=f"{code}except OSError as error: print(type(error).__name__)")
    assert heard == ["ConnectionRefusedError"]


async def test_its_own_servers_work_and_what_is_not_tcp_fails_at_once(shared: Client) -> None:
    code = """
import socket
server = socket.create_server(("", 8080))
connection = socket.create_connection(("127.0.0.1", 8080))
server.accept()[0].sendall(b"own")
print(connection.recv(9).decode())
for family, address in (socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"):
    try:
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.settimeout(30)
        datagrams.connect((address, 443))
        datagrams.send(b"x")
        datagrams.recv(9)
    except OSError as error:
        print(error.strerror)
"""
    heard, _ = await hear(shared, code=code)
    assert heard == ["own", "Connection refused", "Network is unreachable"]


async def test_connections_are_bounded_and_those_that_end_make_room(client: Client, port: int) -> None:
    code = """
import socket, sys
place = sys.argv[1].split(":")
kept = []
def hear():
    try:
        connection = socket.create_connection(place, 30)
        kept.append(connection)
        return connection.recv(9).decode()
    except ConnectionResetError:
        return "reset"
heard = [hear() for _ in range(300)]
print(heard.count("hello"), set(heard[:256]), set(heard[256:]))
for connection in kept:
    connection.close()
while hear() != "hello":
    pass
"""
    heard, _ = await hear(client, f"{NAME}:{port}", code=code)
    assert heard == ["256 {'hello'} {'reset'}"]


@pytest.mark.slow
async def test_connections_that_are_stuck_in_both_directions_take_a_bounded_memory(client: Client, port: int) -> None:
    code = """
import socket, sys, time
host, port = sys.argv[1].split(":")
stuck = [socket.create_connection((host, int(port)), 30) for _ in range(256)]
for connection in stuck:
    connection.settimeout(0.1)
    try:
        while True:
            connection.sendall(b"f" * 65536)
    except TimeoutError:
        pass
print("stuck", flush=True)
time.sleep(600)
"""
    name = new_id("stuck")
    await client.start(name, ["python3", "-c", code, f"{NAME}:{port}"], network=OPEN)
    await client.watch(name, until=b"stuck")
    [relay] = processes.children(runner_of(client.service, name), "services.execution.egress")
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{relay}/status").read_text())
    assert int(peak) < 128 << 10
    await client.stop(name, 0)


async def test_nothing_is_left_of_a_network_whose_runner_is_killed(shared: Client) -> None:
    name, home = new_id("transparent"), {"BOATYARD_HOME": str(shared.service.home)}
    await shared.start(name, "echo ready; sleep 600", network=OPEN)
    await shared.watch(name, until=b"ready")
    runner = runner_of(shared.service, name)
    [relay] = processes.children(runner, "services.execution.egress")
    networks = _networks(processes.with_environment({"BOATYARD_EXECUTION_ID": name})) - _networks([os.getpid()])
    assert len(networks) == 1
    os.kill(runner, signal.SIGKILL)
    await shared.end(name)
    async with asyncio.timeout(20):
        while networks & _networks(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            await asyncio.sleep(0.02)
        while relay in processes.matching("services.execution.egress", home):
            await asyncio.sleep(0.02)


def _own_addresses() -> list[str]:
    """Return the address from which this machine would call others, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        try:
            datagrams.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [datagrams.getsockname()[0]]


def _networks(pids: Iterable[int]) -> set[int]:
    """Return the numbers of the network namespaces that processes are in."""
    found = set()
    for pid in pids:
        try:
            found.add(Path(f"/proc/{pid}/ns/net").stat().st_ino)
        except OSError:  # it has ended
            continue
    return found
