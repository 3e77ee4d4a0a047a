"""An upgrade after the services were killed; in a file of its own, so that both upgrades are tried at once."""

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.e2e.test_upgrade import SERVICES, upgrade_under_jobs
from tests.kit.cell import Cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_an_upgrade_of_killed_services_costs_no_job(scratch: Path, remote: Remote) -> None:
    upgrade_under_jobs(scratch, remote, kill)


def kill(cell: Cell) -> None:
    """Kill the services with -9; agents go on."""
    assert cell.process
    names = ("coordinator", *SERVICES[1:]) if cell.command == "coordinator" else SERVICES
    for pid in [cell.process.pid, *map(cell.service_pid, names)]:
        os.kill(pid, signal.SIGKILL)
    cell.process.wait(timeout=60)
