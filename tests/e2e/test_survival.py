"""Any service may be killed at any moment, and nothing is lost, doubled, leaked or left running."""

import uuid
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit import processes
from tests.kit.cell import Cell, eventually, listens, running_cell

# Writes a numbered line every 20 ms for some seconds, and counts in the workspace how often it was started.
COUNTING = "echo started >> starts.txt; for i in $(seq 150); do echo line $i; sleep 0.02; done"
LINES = b"".join(b"line %d\n" % number for number in range(1, 151))


def has_begun(cell: Cell, execution_id: str) -> bool:
    return any(event["kind"] == "output" for event in cell.lines("logs", execution_id, code=None))


@pytest.mark.slow
@pytest.mark.parametrize("service", ["execution", "gateway"])
def test_a_service_killed_in_mid_run(cell: Cell, remote: Remote, service: str) -> None:
    job = cell.submit(remote.path, COUNTING)
    with cell.start("logs", "--follow", job["execution_id"]) as viewer:
        assert viewer.stdout
        first = viewer.stdout.readline()  # who is connected goes on; who comes while nobody is there is told so
        killed = cell.kill_service(service)
        cell.await_restart(service, killed)

        assert cell.result(job["job_id"])["state"] == "SUCCEEDED"
        assert cell.output(job["execution_id"]) == LINES
        assert remote.show(f"boatyard/{job['job_id']}:starts.txt") == "started"
        assert first + viewer.stdout.read() == LINES


@pytest.mark.slow
@pytest.mark.parametrize("service", ["workspace", "git"])
def test_the_other_services_killed_beside_a_run(cell: Cell, remote: Remote, service: str) -> None:
    job = cell.submit(remote.path, "echo x > new.txt; sleep 1", "--verify", "test -e new.txt")
    cell.kill_service(service)

    assert cell.result(job["job_id"])["state"] == "SUCCEEDED"
    assert remote.show(f"boatyard/{job['job_id']}:new.txt") == "x"


DAEMON = "setsid -f sh -c 'exec 0</dev/null 1>/dev/null 2>/dev/null; : {marker}; sleep 600; : {marker}'"


@pytest.mark.slow
def test_no_daemon_outlives_a_normal_end(cell: Cell, remote: Remote) -> None:
    marker = uuid.uuid4().hex
    result = cell.run(remote.path, f"{DAEMON.format(marker=marker)}; sleep 0.3; echo done")

    assert result["state"] == "SUCCEEDED"
    assert processes.with_marker(marker) == []


def test_no_daemon_outlives_a_cancel(cell: Cell, remote: Remote) -> None:
    marker = uuid.uuid4().hex
    job = cell.submit(remote.path, f"{DAEMON.format(marker=marker)}; echo ready; sleep 600")
    eventually(lambda: has_begun(cell, job["execution_id"]), "the agent has begun")
    assert processes.with_marker(marker)
    cell.boatyard("cancel", job["job_id"])

    assert cell.result(job["job_id"])["state"] == "CANCELLED"
    assert processes.with_marker(marker) == []


@pytest.mark.slow
def test_up_stops_and_the_agent_goes_on(scratch: Path, remote: Remote) -> None:
    gates = scratch / "gates"
    gates.mkdir()
    with running_cell(scratch, BOATYARD_EXECUTION_READ_ONLY_PATHS=str(gates)) as cell:
        job = cell.submit(remote.path, f"echo before; until [ -e {gates}/open ]; do sleep 0.05; done; echo after")
        eventually(lambda: has_begun(cell, job["execution_id"]), "the agent has begun")
        assert cell.process
        cell.process.terminate()
        assert cell.process.wait(timeout=30) == 0
        assert b"1 agent" in (scratch / "up.log").read_bytes()
        cell.process.stdout.close()
        cell.up()
        (gates / "open").touch()

        assert cell.result(job["job_id"])["state"] == "SUCCEEDED"
        assert cell.output(job["execution_id"]) == b"before\nafter\n"


@pytest.mark.slow
def test_down_ends_everything(scratch: Path, remote: Remote) -> None:
    marker = uuid.uuid4().hex
    with running_cell(scratch) as cell:
        job = cell.submit(remote.path, f": {marker}; echo ready; sleep 600; : {marker}")
        eventually(lambda: has_begun(cell, job["execution_id"]), "the agent has begun")
        assert cell.process
        cell.process.kill()  # not even the supervisor's death keeps `down` from its work
        cell.process.wait()
        eventually(lambda: not listens(cell.address("gateway")), "the services end")
        assert processes.with_marker(marker)
        cell.down()

        assert processes.with_marker(marker) == []
