"""Executions whose network is an allow list, with programs that people use, against the test's own server."""

import asyncio
import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from boatyard.agent.v1 import sandbox_pb2

from services.common.errors import Invalid
from services.common.ids import new_id
from services.common.rpc.status import service_error
from services.sandbox import environment
from tests.integration.execution.model import playing, results
from tests.integration.execution.service import Client, Seen, State, running
from tests.kit import processes
from tests.kit.replay import bash

ALLOWED, REFUSED = "127.0.0.2", "127.0.0.3"  # loopback is a whole network; the proxy's own is 127.0.0.1


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"page {self.path} of {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server on all of loopback."""
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest_asyncio.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    directory = tmp_path_factory.mktemp("network")
    async with running(directory, NETWORK_ALLOWED_ADDRESSES=f"{ALLOWED}/32") as client:
        yield client


async def run(client: Client, line: str, *hosts: str) -> Seen:
    name = new_id("network")
    await client.start(name, line, network=sandbox_pb2.NETWORK_ALLOW_LIST, allowed_hosts=hosts)
    seen = await client.watch(name)
    seen.check_whole()
    assert seen.end.processes_left == 0
    return seen


def decisions(seen: Seen) -> list[tuple[str, int, bool, str]]:
    found = [event.network_decision for event in seen.events if event.HasField("network_decision")]
    return [(one.host, one.port, one.allowed, one.reason) for one in found]


FETCH = "python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=20).read())' {url}"
CLIENTS = {
    "curl": "curl -sS --max-time 20 -w '%{{http_code}}' {url}",
    "curl by a tunnel": "curl -sS --max-time 20 -p {url}",
    "python3": FETCH,
    "wget": "wget -q -O - -T 20 {url}",
    "git": "git ls-remote {url}",
    "npm": "npm ping --registry {url} --fetch-retries 0 2>&1",
}
HERE = [name for name in CLIENTS if any((each / name.split()[0]).exists() for each in environment.search_path())]


@pytest.mark.parametrize("program", [name for name in HERE if name not in {"git", "npm"}])
async def test_an_allowed_host_is_reached(client: Client, port: int, program: str) -> None:
    line = CLIENTS[program].format(url=f"http://{ALLOWED}:{port}/a?b=c")
    seen = await run(client, line, f"{ALLOWED}:{port}")
    assert f"page /a?b=c of {ALLOWED}:{port}".encode() in seen.output
    assert decisions(seen) == [(ALLOWED, port, True, "")]
    assert seen.end.state == State.STATE_SUCCEEDED


@pytest.mark.parametrize("program", HERE)
async def test_another_host_is_not_and_that_is_an_event(client: Client, port: int, program: str) -> None:
    line = CLIENTS[program].format(url=f"http://{REFUSED}:{port}/")
    seen = await run(client, line, f"{ALLOWED}:{port}")
    assert b"page" not in seen.output
    assert set(decisions(seen)) == {(REFUSED, port, False, "HOST_NOT_ALLOWED")}


@pytest.mark.parametrize(
    ("host", "pattern", "reason"),
    [
        (REFUSED, "*:{port}", "ADDRESS_NOT_ALLOWED"),
        ("127.0.0.1", "127.0.0.1:{port}", "ADDRESS_NOT_ALLOWED"),
        ("[::1]", "[::1]:{port}", "ADDRESS_NOT_ALLOWED"),
        ("[::ffff:127.0.0.3]", "*:{port}", "ADDRESS_NOT_ALLOWED"),
        ("0.0.0.0", "*:{port}", "ADDRESS_NOT_ALLOWED"),
        ("169.254.169.254", "*:{port}", "ADDRESS_NOT_ALLOWED"),
        (ALLOWED, ALLOWED, "PORT_NOT_ALLOWED"),
    ],
)
async def test_what_is_not_public_is_not_reached_by_any_name(
    client: Client, port: int, host: str, pattern: str, reason: str
) -> None:
    line = "no_proxy= NO_PROXY= " + FETCH.format(url=f"http://{host}:{port}/")
    seen = await run(client, line, pattern.format(port=port))
    assert b"page" not in seen.output
    assert [one[2:] for one in decisions(seen)] == [(False, reason)]


async def test_names_are_asked_of_us_alone(client: Client) -> None:
    line = "getent ahostsv4 a.example.test; getent ahostsv4 other.test; echo $?"
    seen = await run(client, line, "*.example.test")
    assert seen.output.startswith(b"198.18."), "an address is made up for it"
    assert seen.output.endswith(b"\n2\n")
    told = decisions(seen)
    assert ("a.example.test", 53, True, "") in told
    assert ("other.test", 53, False, "HOST_NOT_ALLOWED") in told


async def test_without_the_proxy_no_more_is_reached(client: Client, port: int) -> None:
    urls = (f"http://{ALLOWED}:{port}/", f"http://127.0.0.1:{port}/", "http://192.0.2.1/", "http://[2001:db8::1]/")
    tries = ("NO_PROXY='*' no_proxy='*' " + FETCH.format(url=url) for url in urls)
    seen = await run(client, "; ".join(f"{line} && echo REACHED" for line in tries), "*")
    assert b"REACHED" not in seen.output
    assert b"page" not in seen.output
    assert decisions(seen) == [("192.0.2.1", 80, False, "ADDRESS_NOT_ALLOWED")]


@pytest.mark.slow
async def test_a_models_tools_have_the_same_way_out(tmp_path: Path, port: int) -> None:
    work = [bash("; ".join(FETCH.format(url=f"http://{host}:{port}/") for host in (ALLOWED, REFUSED)))]
    replies = [{"text": "I look.", "tools": work}, {"text": "Done."}]
    async with playing(tmp_path, replies, NETWORK_ALLOWED_ADDRESSES=f"{ALLOWED}/32") as model:
        network = sandbox_pb2.NETWORK_ALLOW_LIST
        seen = await model.run(new_id("network"), network=network, allowed_hosts=[f"{ALLOWED}:{port}"])
    assert "page / of" in results(seen)[0]
    assert decisions(seen) == [(ALLOWED, port, True, ""), (REFUSED, port, False, "HOST_NOT_ALLOWED")]


async def test_the_proxy_ends_with_its_execution(client: Client, port: int) -> None:
    name = new_id("network")
    await client.start(
        name, "echo ready; sleep 60", network=sandbox_pb2.NETWORK_ALLOW_LIST, allowed_hosts=[f"{ALLOWED}:{port}"]
    )
    await client.watch(name, until=b"ready")
    home = str(client.service.home)
    assert _proxies(home)
    await client.stop(name, 0)
    await client.end(name)
    async with asyncio.timeout(10):
        while _proxies(home):
            await asyncio.sleep(0.02)


async def test_a_flood_of_decisions_is_counted_and_not_told(client: Client) -> None:
    line = (
        "python3 -c 'import socket\nfor i in range(2000):\n"
        ' s = socket.create_connection(("127.0.0.1", 3128))\n'
        ' s.sendall(b"CONNECT h%d.test:443 HTTP/1.1\\r\\n\\r\\n" % i); s.recv(99); s.close()\''
    )
    seen = await run(client, line, "example.test")
    told = [event.network_decision for event in seen.events if event.HasField("network_decision")]
    assert 200 <= len(told) < 2000


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"network": sandbox_pb2.NETWORK_ALLOW_LIST, "allowed_hosts": ["a b"]}, "spec.agent.allowed_hosts[0]"),
        ({"network": sandbox_pb2.NETWORK_NONE, "allowed_hosts": ["example.com"]}, "spec.agent.allowed_hosts"),
        (
            {"network": sandbox_pb2.NETWORK_ALLOW_LIST, "sandbox_tier": sandbox_pb2.SANDBOX_TIER_NONE},
            "spec.agent.network",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused(client: Client, fields: dict, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.start(new_id("network"), "true", **fields)
    error = service_error(caught.value)
    assert isinstance(error, Invalid)
    assert [name for name, _ in error.violations] == [field]


def _proxies(home: str) -> list[int]:
    return processes.matching("services.execution.egress", {"BOATYARD_HOME": home})
