"""A job whose model is away for longer than its agent waits: it lets go of its place, and goes on by itself."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cell import Cell, eventually, running_cell
from tests.kit.faulty_provider import ASK, FaultyProvider, serving

KEY = "sk-ant-of-an-outage-4711"
AGENT = f"echo attempt >> attempts.txt; {ASK}"
SHORT = {"BOATYARD_EXECUTION_MODEL_PATIENCE_SECONDS": "1", "BOATYARD_GATEWAY_MODEL_PAUSE_SECONDS": "1"}


class Provider(FaultyProvider):
    """A provider that is away until it is told otherwise."""

    is_away = True

    def answered_with(self) -> tuple[int, Mapping[str, str]]:
        return 503 if self.is_away else 200, {}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving(Provider()) as provider:
        yield provider


def parked(cell: Cell, job_id: str) -> dict | None:
    (job,) = cell.lines("show", job_id)
    waiting = job["waiting_for"]
    return job if job["state"] == "PENDING" and waiting and waiting["kind"] == "MODEL_UNAVAILABLE" else None


@pytest.mark.slow
def test_an_outage_ends_no_job(provider: Provider, remote: Remote, scratch: Path) -> None:
    settings = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": provider.url, "BOATYARD_GATEWAY_MAX_JOBS": "1"}
    with running_cell(scratch, **SHORT, **settings) as cell:
        job = cell.submit(remote.path, AGENT, "--max-attempts", "1")
        other = cell.submit(remote.path, AGENT)
        cell.boatyard("cancel", other["job_id"])
        waiting = eventually(lambda: parked(cell, job["job_id"]), "it waits for its model")
        assert isinstance(waiting, dict)
        assert "model provider anthropic does not answer" in waiting["waiting_for"]["message"]
        assert cell.run(remote.path, "echo the place is free")["state"] == "SUCCEEDED"
        assert cell.result(other["job_id"])["state"] == "CANCELLED"
        cell.await_restart("gateway", cell.kill_service("gateway"))
        provider.is_away = False
        result = cell.result(job["job_id"])
        assert result["state"] == "SUCCEEDED", result["message"]
        attempts = remote.show(f"{result['branch']}:attempts.txt").split()
        assert len(attempts) >= 2, "it went on with what it had"
        (shown,) = cell.lines("show", job["job_id"])
        assert shown["tokens_used"] == 7
