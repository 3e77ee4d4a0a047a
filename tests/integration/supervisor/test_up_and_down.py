"""`boatyard up` and `boatyard down` with real services, ended in every way there is."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from services.common.db.engine import open_database, sqlite_url
from services.common.db.migrate import migrate
from services.common.program import EXIT_CANNOT_START
from tests.kit import processes
from tests.kit.cell import BOATYARD, Cell, eventually, listens

SERVICES = ("workspace", "git", "execution", "gateway")


@pytest.fixture
def cell() -> Iterator[Cell]:
    """A cell that is not up. Nothing of it may be left when a test ends, and most tests end it themselves."""
    directory = Path(tempfile.mkdtemp(prefix="boatyard-test-"))
    cell = Cell(directory / "home")
    yield cell
    left = processes.with_environment({"BOATYARD_HOME": str(cell.home)})
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if cell.process:
        cell.process.communicate(timeout=30)
    shutil.rmtree(directory)
    assert not left


def services_of(cell: Cell) -> list[int]:
    return [
        pid
        for service in SERVICES
        for pid in processes.matching(f"services.{service}", {"BOATYARD_HOME": str(cell.home)})
    ]


def complaints(cell: Cell) -> str:
    return (cell.home.parent / "up.log").read_text()


def attempt(cell: Cell, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BOATYARD, *map(str, arguments)],
        env=cell.environment | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_cell_lives_and_ends_in_order(cell: Cell) -> None:
    secrets = {
        "ANTHROPIC_API_KEY": "a-key",
        "BOATYARD_TOKEN": "a-token",
        "BOATYARD_DATABASE_URL": f"sqlite:///{cell.home.parent}/gateway.db",
    }
    cell.environment |= secrets  # the command line shows the token
    cell.up()
    assert cell.process
    told = {
        service: {name for name in secrets if processes.environment(cell.service_pid(service)).get(name)}
        for service in SERVICES
    }
    assert told == {
        "workspace": set(),
        "git": set(),
        "execution": set(),
        "gateway": {"ANTHROPIC_API_KEY", "BOATYARD_TOKEN", "BOATYARD_DATABASE_URL"},
    }, "no service is told what is another's secret"
    found = {finding["check"]: finding["status"] for finding in cell.lines("doctor")}
    assert [found[f"{service} service"] for service in SERVICES] == ["ok"] * 4
    assert found["database"] == "ok"
    assert {name for name in found if name.startswith("agents: ")} == {
        f"agents: {what}"
        for what in (
            "sandbox",
            "uid",
            "container",
            "system calls",
            "memory",
            "processes",
            "cpu",
            "disk",
            "network",
            "door",
            "may choose",
        )
    }, "what the execution service found out about this machine"

    second = attempt(cell, "up")
    assert second.returncode == 1
    assert f"process {cell.process.pid} already runs the cell" in second.stderr

    for service in ("workspace", "gateway"):
        cell.await_restart(service, cell.kill_service(service))
    eventually(lambda: cell.boatyard("ps", code=None).startswith(b"JOB"), "the gateway answers again")

    cell.process.terminate()
    assert cell.process.wait(timeout=30) == 0
    assert cell.process.stdout
    assert cell.process.stdout.read() == b""  # one line, and nothing more
    assert "gateway ended (signal 9); restarting it" in complaints(cell)
    assert services_of(cell) == []
    assert not any(listens(cell.address(service)) or listens(cell.socket(service)) for service in SERVICES)
    assert [path.name for path in (cell.home / "run").glob("*.sock")] == []
    assert attempt(cell, "ps").returncode == 4


@pytest.mark.slow
async def test_databases_that_are_not_what_their_version_makes_are_named_and_left_alone(cell: Cell) -> None:
    files = {service: cell.home / service / f"{service}.db" for service in SERVICES}
    for service, path in files.items():
        path.parent.mkdir(parents=True, mode=0o700)
        engine = open_database(sqlite_url(path))
        await migrate(engine, f"services.{service}.migrations")
        async with engine.begin() as connection:
            table = "tokens" if service == "gateway" else "fences"
            await connection.execute(text(f"ALTER TABLE {table} ADD COLUMN dropped_since TEXT"))
        await engine.dispose()
    cell.home.chmod(0o700)
    cell.environment["BOATYARD_GATEWAY_LISTEN"] = cell.address("gateway")  # not where another cell may be
    refused = attempt(cell, "up", "--port-base", cell.base)
    assert refused.returncode == 1
    assert "should not have" in refused.stderr
    running = [
        subprocess.Popen([sys.executable, "-m", f"services.{service}"], env=cell.environment, stderr=subprocess.PIPE)
        for service in SERVICES
    ]
    for path, process in zip(files.values(), running, strict=True):
        said = process.communicate(timeout=60)[1].decode()
        assert (process.returncode, said.count("\n")) == (EXIT_CANNOT_START, 1), said
        assert f"the database {path} says that it has schema version" in said
        assert "has a column dropped_since" in said
    found = [finding["message"] for finding in cell.lines("doctor", code=1) if finding["check"].endswith(" service")]
    assert any("has a column dropped_since" in message for message in found)


@pytest.mark.slow
def test_a_killed_supervisor_leaves_no_service_and_is_followed_by_another(cell: Cell) -> None:
    cell.up()
    assert cell.process
    cell.process.kill()
    cell.process.communicate()

    cell.up()  # at once, on the same ports, while the services of the first are still ending
    assert len(services_of(cell)) == 4
    cell.process.kill()
    cell.process.wait()
    eventually(lambda: not services_of(cell), "services end with their supervisor")

    assert cell.boatyard("down") == b""
    assert cell.lines("down") == [{"kind": "down", "home": str(cell.home)}]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_agents_too(cell: Cell) -> None:
    cell.up()
    assert cell.process
    (job,) = cell.lines("run", "--command", "echo begun; sleep 600", "--detach", "Wait.")
    eventually(lambda: b"begun" in cell.boatyard("logs", job["job_id"]), "the agent has begun")
    cell.process.send_signal(signal.SIGINT)
    eventually(lambda: "Ctrl-C again" in complaints(cell), "the supervisor says what a second Ctrl-C does")
    cell.process.send_signal(signal.SIGINT)

    assert cell.process.wait(timeout=30) == 0
    assert "1 agent is left running" in complaints(cell)
    assert "ended 1 agent" in complaints(cell)
    assert processes.with_environment({"BOATYARD_HOME": str(cell.home)}) == {}


@pytest.mark.slow
def test_whoever_sits_on_the_ports_keeps_nothing_from_starting(cell: Cell) -> None:
    """Neither at the start nor when the gateway is restarted; it takes its ports as soon as they are free."""
    ports = (cell.base, cell.base + 20)
    squatters = [socket.create_server(("127.0.0.1", port)) for port in ports]
    cell.begin()
    assert cell.process
    assert cell.process.stdout
    assert f"gateway {cell.socket('gateway')}" in cell.process.stdout.readline().decode()
    for port, service in zip(ports, ("gateway", "http"), strict=True):
        assert f"another program listens on 127.0.0.1:{port}, the address of {service}" in complaints(cell)
    cell.await_restart("gateway", cell.kill_service("gateway"))
    assert cell.lines("ps") == []
    for squatter in squatters:
        squatter.close()
    for port in ports:
        eventually(lambda port=port: listens(f"127.0.0.1:{port}"), f"the gateway listens on {port}")
    assert cell.lines("ps") == []
    cell.down()


def test_a_node_services_port_that_is_taken_is_named(cell: Cell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = attempt(cell, "up", "--port-base", cell.base, BOATYARD_GIT_LISTEN=address)

    assert result.returncode == 1
    assert f"another program listens on {address}, the address of git" in result.stderr
    assert services_of(cell) == []


@pytest.mark.slow
def test_a_service_that_cannot_start_ends_up_at_once_with_one_line(cell: Cell) -> None:
    result = attempt(cell, "up", "--port-base", cell.base, BOATYARD_DATABASE_URL="nonsense://")

    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "gateway: a database is sqlite:///path or postgresql://…, not nonsense:" in line
    assert services_of(cell) == []


def test_down_where_nothing_ever_was(cell: Cell) -> None:
    result = attempt(cell, "down")

    assert (result.returncode, result.stdout) == (0, "")
    assert not cell.home.exists()
