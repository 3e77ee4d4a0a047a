"""A provider that wants to be left alone is, by the agents of every cell, until the time that it has said."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cell import NOT_KEPT_APART, Cell, eventually, running_cell
from tests.kit.cells import running_cells
from tests.kit.faulty_provider import ASK, FaultyProvider, serving
from tests.kit.postgres import database

LEFT_ALONE_S = 12


class Provider(FaultyProvider):
    """A provider that wants to be left alone after its first request, and notes when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def answered_with(self) -> tuple[int, Mapping[str, str]]:
        self.asked.append(time.monotonic())
        return (429, {"retry-after": str(LEFT_ALONE_S)}) if len(self.asked) == 1 else (200, {})


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving(Provider()) as provider:
        yield provider


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
