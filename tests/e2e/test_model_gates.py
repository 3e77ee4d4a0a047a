"""A provider that wants to be left alone is, by the agents of every cell, until the time that it has said."""

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cell import NOT_KEPT_APART, Cell, eventually, running_cell
from tests.kit.cells import running_cells
from tests.kit.postgres import database

LEFT_ALONE_S = 12
ASK = 'curl -sS --fail -H x-api-key:$ANTHROPIC_API_KEY -d \'{"model": "m"}\' $ANTHROPIC_BASE_URL/v1/messages'


class Provider(ThreadingHTTPServer):
    """A provider that wants to be left alone after its first request, and notes when it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.asked: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answering(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(time.monotonic())
        body = b'{"id": "msg_1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 4}}'
        is_first = len(self.server.asked) == 1
        self.send_response(429 if is_first else 200)
        if is_first:
            self.send_header("retry-after", str(LEFT_ALONE_S))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            stack.callback(serving.shutdown)
            yield serving


def events(cell: Cell, execution_id: str, kind: str) -> list[dict]:
    return [event for event in cell.lines("logs", execution_id) if event["kind"] == kind]


def check_left_alone(provider: Provider, remote: Remote, first: Cell, other: Cell, budget: tuple[str, ...]) -> None:
    """Run two agents: one is told to wait, and the other begins while that time lasts."""
    first.boatyard("provider", "create", "shared", "--wire", "messages", "--base-url", provider.url)
    told = first.submit(remote.path, ASK)
    eventually(
        lambda: any(end["gates"] for end in events(first, told["execution_id"], "ask_end")), "the first is told to wait"
    )
    waits = other.submit(remote.path, ASK, *budget)
    eventually(lambda: events(other, waits["execution_id"], "ask"), "the second asks")
    first.await_restart("gateway", first.kill_service("gateway"))
    assert [other.result(job["job_id"])["state"] for job in (told, waits)] == ["SUCCEEDED"] * 2
    assert len(provider.asked) == 3
    assert provider.asked[1] - provider.asked[0] >= LEFT_ALONE_S
    used = [event for job in (told, waits) for event in events(other, job["execution_id"], "usage")]
    assert [(use["http_status"], bool(use["ask_id"])) for use in used] == [(200, True)] * 2, json.dumps(used)


@pytest.mark.slow
def test_a_restarted_cell_still_leaves_it_alone(provider: Provider, remote: Remote, scratch: Path) -> None:
    with running_cell(scratch, BOATYARD_PROVIDER_ALLOW="127.0.0.0/8") as cell:
        check_left_alone(provider, remote, cell, cell, ("--budget", "3requests"))


@pytest.mark.slow
def test_another_cell_leaves_it_alone(provider: Provider, remote: Remote, postgres_server: object) -> None:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    settings = {"BOATYARD_PROVIDER_ALLOW": "127.0.0.0/8", "BOATYARD_GATEWAY_MAX_JOBS": "1", "lease_seconds": 30.0}
    with (
        database(postgres_server) as url,
        running_cells(directory, 2, url, **NOT_KEPT_APART, **settings) as (first, second),
    ):
        check_left_alone(provider, remote, first, second, ())
    shutil.rmtree(directory)
