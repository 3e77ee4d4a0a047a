import json
from pathlib import Path

import pytest

from services.common.errors import StartError
from services.common.home import Home
from services.common.lock import FileLock
from services.supervisor.plan import cell_file, has_no_sockets, plan, read_called_at, supervisor_lock, write_cell_file

HOME = Home(Path("/somewhere"))


def test_the_gateway_has_ports_and_everybody_a_socket() -> None:
    cell = plan(HOME, None, {})

    assert cell.addresses == {
        "gateway": "127.0.0.1:7460",
        "workspace": "unix:/somewhere/run/workspace.sock",
        "git": "unix:/somewhere/run/git.sock",
        "execution": "unix:/somewhere/run/execution.sock",
        "http": "127.0.0.1:7480",
    }
    assert cell.called_at("gateway") == "unix:/somewhere/run/gateway.sock"
    assert cell.environment["BOATYARD_HOME"] == "/somewhere"


def test_a_setting_moves_one_and_a_port_base_moves_the_ports() -> None:
    environment = {"BOATYARD_GIT_LISTEN": "127.0.0.1:9000", "BOATYARD_GATEWAY_LISTEN": "127.0.0.1:9001", "PATH": "/bin"}
    moved = plan(HOME, None, environment)
    based = plan(HOME, 20000, environment)

    assert (moved.addresses["git"], moved.environment["BOATYARD_GATEWAY_GIT_ADDRESS"]) == ("127.0.0.1:9000",) * 2
    assert moved.addresses["gateway"] == "127.0.0.1:9001"
    assert moved.addresses["workspace"] == "unix:/somewhere/run/workspace.sock"
    assert based.addresses == {**moved.addresses, "gateway": "127.0.0.1:20000", "http": "127.0.0.1:20020"}
    assert based.environment["PATH"] == "/bin"


def test_local_remotes_are_allowed_unless_somebody_says_otherwise() -> None:
    assert plan(HOME, None, {}).environment["BOATYARD_GIT_FILE_ROOTS"] == "/"
    assert plan(HOME, None, {"BOATYARD_GIT_FILE_ROOTS": ""}).environment["BOATYARD_GIT_FILE_ROOTS"] == ""


@pytest.mark.parametrize("base", [0, 80, 65530, 70000])
def test_a_base_without_room_for_its_ports(base: int) -> None:
    with pytest.raises(StartError, match=str(base)):
        plan(HOME, base, {})


def test_a_cell_of_an_earlier_version_is_known_by_its_file(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.directory("run")
    write_cell_file(plan(home, 20000, {}))
    lock = FileLock(supervisor_lock(home))
    assert not has_no_sockets(home)
    assert read_called_at(home)["gateway"] == home.socket("gateway")
    cell_file(home).write_text(json.dumps({"addresses": {"gateway": "127.0.0.1:20000"}, "pid": 1}))
    assert has_no_sockets(home)
    lock.release()
    assert not has_no_sockets(home), "its supervisor is gone"


@pytest.mark.parametrize("content", [None, "", "[1]", "3"])
def test_a_cell_file_that_says_nothing_is_no_cell(tmp_path: Path, content: str | None) -> None:
    home = Home(tmp_path)
    home.directory("run")
    if content is not None:
        cell_file(home).write_text(content)

    assert not has_no_sockets(home)
