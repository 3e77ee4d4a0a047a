"""Whoever is sent on to another server shows it neither a login nor headers, and makes the same request there."""

import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.ids import new_id
from services.git.model import Remote
from services.git.remote.addresses import AddressBook
from services.git.remote.file_repository import FileRoots
from services.git.remote.lfs_batch import Endpoint
from services.git.remote.lfs_http import LfsCall, LfsError, LfsSession

BODY = b"a body" * 1000
SECRETS = {"authorization", "x-signature", "private-token"}


@dataclass
class Server:
    """Answers a path with what `hops` says: a status and where to go on, or 200."""

    port: int = 0
    hops: dict[str, tuple[int, str]] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """Two servers on this machine, of which the first is the remote's own."""
    started = [_serve() for _ in range(2)]
    yield [server for server, _ in started]
    for _, httpd in started:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture(scope="module")
async def session(servers: list[Server]) -> AsyncIterator[LfsSession]:
    """A session for a remote on the first server, with a token."""
    addresses = AddressBook(FileRoots((), (), Path("/nowhere")), allow_loopback_http=True)
    remote = Remote("repo-1", servers[0].url("/app.git"), "the-token")
    session = LfsSession(addresses, remote, Endpoint(servers[0].url("/app.git/info/lfs")), "", 10)
    yield session
    await session.close()


def _serve() -> tuple[Server, ThreadingHTTPServer]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            server.seen.append((self.command, self.path, headers, body))
            status, location = server.hops.get(self.path, (200, ""))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PUT(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = httpd.server_address[1]
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}).start()
    return server, httpd


async def _long() -> AsyncIterator[bytes]:
    yield BODY[:100]
    yield BODY[100:]


HOPS = st.lists(st.tuples(st.sampled_from([301, 302, 303, 307, 308]), st.sampled_from([0, 1])), max_size=3)


@settings(max_examples=30)
@given(start=st.sampled_from([0, 1]), hops=HOPS, method=st.sampled_from(["GET", "POST", "PUT"]))
async def test_the_same_request_arrives_and_what_is_secret_stays_with_the_first_server(
    servers: list[Server], session: LfsSession, start: int, hops: list[tuple[int, int]], method: str
) -> None:
    ways = [f"/{new_id('path')}" for _ in range(len(hops) + 1)]
    at = [start, *(server for _, server in hops)]
    for number, (status, server) in enumerate(hops):
        servers[at[number]].hops[ways[number]] = status, servers[server].url(ways[number + 1])
    content = {"GET": None, "POST": BODY, "PUT": _long}[method]
    headers = {"X-Signature": "secret", "Private-Token": "secret", "content-type": "text/x"}
    if method == "PUT":
        headers["content-length"] = str(len(BODY))
    async with session.call(LfsCall(method, servers[start].url(ways[0]), headers, content=content)):
        pass
    for number, path in enumerate(ways):
        ((verb, _, said, body),) = [request for request in servers[at[number]].seen if request[1] == path]
        assert (verb, body, said["content-type"]) == (method, b"" if method == "GET" else BODY, "text/x")
        at_home = set(at[: number + 1]) == {start}
        login = {"authorization"} if start == 0 else set()
        assert SECRETS & said.keys() == (login | {"x-signature", "private-token"} if at_home else set())


async def test_who_is_sent_on_and_on_gives_up(servers: list[Server], session: LfsSession) -> None:
    path = f"/{new_id('path')}"
    servers[0].hops[path] = 307, servers[0].url(path)
    with pytest.raises(LfsError, match="redirects more than 3 times"):
        async with session.call(LfsCall("POST", servers[0].url(path), content=b"x")):
            pass
    assert sum(request[1] == path for request in servers[0].seen) == 4
