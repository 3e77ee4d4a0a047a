from pathlib import Path

import pytest

from services.common.errors import StartError
from services.common.home import Home
from services.common.rpc.tls import ClientTls
from services.supervisor.plan import cell_file, gateway_tls, plan, read_cell_addresses, write_cell_file

HOME = Home(Path("/somewhere"))


def test_everybody_listens_where_everybody_expects_it() -> None:
    cell = plan(HOME, None, {})

    assert cell.addresses == {
        "gateway": "127.0.0.1:7460",
        "workspace": "127.0.0.1:7461",
        "git": "127.0.0.1:7462",
        "execution": "127.0.0.1:7463",
        "http": "127.0.0.1:7480",
    }
    assert cell.environment["BOATYARD_HOME"] == "/somewhere"


def test_a_setting_moves_one_and_a_port_base_moves_all() -> None:
    environment = {"BOATYARD_GIT_LISTEN": "127.0.0.1:9000", "PATH": "/bin"}
    moved = plan(HOME, None, environment)
    based = plan(HOME, 20000, environment)

    assert (moved.addresses["git"], moved.environment["BOATYARD_GATEWAY_GIT_ADDRESS"]) == ("127.0.0.1:9000",) * 2
    assert moved.addresses["workspace"] == "127.0.0.1:7461"
    assert (based.addresses["git"], based.environment["BOATYARD_GIT_LISTEN"]) == ("127.0.0.1:20002",) * 2
    assert based.environment["PATH"] == "/bin"


def test_local_remotes_are_allowed_unless_somebody_says_otherwise() -> None:
    assert plan(HOME, None, {}).environment["BOATYARD_GIT_FILE_ROOTS"] == "/"
    assert plan(HOME, None, {"BOATYARD_GIT_FILE_ROOTS": ""}).environment["BOATYARD_GIT_FILE_ROOTS"] == ""


@pytest.mark.parametrize("base", [0, 80, 65530, 70000])
def test_a_base_without_room_for_its_ports(base: int) -> None:
    with pytest.raises(StartError, match=str(base)):
        plan(HOME, base, {})


def test_addresses_are_found_again_by_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.directory("run")
    cell = plan(home, 20000, {})
    write_cell_file(cell)

    assert read_cell_addresses(home) == cell.addresses


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"addresses": 3}'])
def test_a_cell_file_that_says_nothing_is_no_cell(tmp_path: Path, content: str | None) -> None:
    home = Home(tmp_path)
    home.directory("run")
    if content is not None:
        cell_file(home).write_text(content)

    assert read_cell_addresses(home) == {}


def test_how_the_gateway_is_called_is_read_from_the_environment() -> None:
    assert gateway_tls({}) is None
    told = {"BOATYARD_GATEWAY_CA": "/ca.pem", "BOATYARD_GATEWAY_SERVER_NAME": "gateway.example"}
    assert gateway_tls(told) == ClientTls(Path("/ca.pem"), server_name="gateway.example")
