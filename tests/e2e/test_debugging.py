"""Every service can be asked by hand, without a .proto in sight."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.cell import Cell

BUF = Path(sys.executable).parent / "buf"
CALLS = {
    "workspace": ("boatyard.workspace.v1.WorkspaceService/ListWorkspaces", "cell-token"),
    "git": ("boatyard.git.v1.GitService/ListChangedFiles", "cell-token"),
    "execution": ("boatyard.execution.v1.ExecutionService/ListExecutions", "cell-token"),
    "gateway": ("boatyard.gateway.v1.CatalogService/ListProjects", "token"),
}
REQUESTS = {"git": {"repositoryId": "none", "baseCommitId": "0" * 40, "commitId": "1" * 40}}


def curl(cell: Cell, service: str, method: str, request: object, token: str = "") -> tuple[int, dict]:
    """Call a method by reflection, as a person would; return the exit code and the answer or error."""
    header = ["--header", f"Authorization: Bearer {(cell.home / token).read_text().strip()}"] if token else []
    result = subprocess.run(
        [
            *(BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *header),
            *("--unix-socket", str(cell.home / "run" / f"{service}.sock")),
            *("--data", json.dumps(request), f"http://localhost/{method}"),
        ],
        env=cell.environment,
        capture_output=True,
        check=False,
        timeout=30,
    )
    return result.returncode, json.loads(result.stdout or result.stderr)


@pytest.mark.parametrize("service", CALLS)
def test_health_is_open(cell: Cell, service: str) -> None:
    code, answer = curl(cell, service, "grpc.health.v1.Health/Check", {})

    assert (code, answer) == (0, {"status": "SERVING"})


@pytest.mark.parametrize("service", CALLS)
def test_a_real_call_needs_the_token(cell: Cell, service: str) -> None:
    method, token = CALLS[service]
    request = REQUESTS.get(service, {})
    _, refused = curl(cell, service, method, request)
    _, answer = curl(cell, service, method, request, token)

    assert refused["code"] == "unauthenticated"
    assert answer.get("code") == ("not_found" if service == "git" else None), answer
