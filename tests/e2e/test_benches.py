"""Every measurement runs to its end, by its smallest part: what nobody runs does not stay right."""

import subprocess
import sys

import pytest

from tests.kit.contract import ROOT

SMALLEST = {
    "budgets": ["SQLite", "--rounds", "1", "--seconds", "0.3", "--agents", "1", "8"],
    "chaos": ["--help"],  # test_chaos does what it does
    "door": ["--requests", "5", "--streams", "5", "--events", "5", "--rounds", "1"],
    "executions": ["memory"],
    "floods": ["--seconds", "4", "--jobs", "1"],
    "gateway": ["execute", "--rounds", "1"],
    "loop": ["--turns", "8", "--starts", "1"],
    "queues": ["SQLite", "--rounds", "1", "--jobs", "5", "--history", "10"],
    "real": [],
    "rpc": ["--rounds", "1", "--calls", "40"],
    "taking": ["40", "--rounds", "1"],
    "workspaces": ["small", "--clones", "1", "--rounds", "1"],
}

pytestmark = pytest.mark.slow


def test_none_is_forgotten() -> None:
    assert set(SMALLEST) == {path.stem for path in (ROOT / "bench").glob("[a-z]*.py")}


@pytest.mark.parametrize("name", SMALLEST)
def test_it_runs_and_says_what_it_found(name: str) -> None:
    command = [sys.executable, "-m", f"bench.{name}", *SMALLEST[name]]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout, "it says nothing"
