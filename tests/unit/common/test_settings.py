"""Settings name what is wrong, tokens are made once, and the data directory is private."""

import os
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from services.cli.checks import data_directory
from services.cli.findings import FAIL, OK, WARN
from services.common.addresses import is_loopback
from services.common.errors import StartError
from services.common.home import Home, read_token
from services.common.settings import ServiceSettings, load_settings
from services.execution.settings import ExecutionSettings


class ExampleSettings(ServiceSettings, env_prefix="BOATYARD_EXAMPLE_"):
    limit: int = 3


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOATYARD_HOME", str(tmp_path))
    monkeypatch.setenv("BOATYARD_EXAMPLE_LIMIT", "5")
    monkeypatch.setenv("BOATYARD_EXAMPLE_LISTEN", "[::1]:0")
    settings = load_settings(ExampleSettings)
    assert (settings.home.root, settings.limit, settings.listen) == (tmp_path, 5, "[::1]:0")


def test_every_wrong_variable_is_named_and_no_value_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_EXAMPLE_LIMIT", "secret")
    monkeypatch.setenv("BOATYARD_EXAMPLE_LISTEN", "0.0.0.0:1")
    with pytest.raises(StartError) as caught:
        load_settings(ExampleSettings)
    assert "BOATYARD_EXAMPLE_LIMIT: " in str(caught.value)
    assert "BOATYARD_EXAMPLE_LISTEN: must be unix:PATH, or a loopback address" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_data_directory_that_is_not_utf_8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_HOME", os.fsdecode(b"/tmp/h\xff"))
    with pytest.raises(StartError, match="BOATYARD_HOME must be UTF-8"):
        Home.from_environment()
    with pytest.raises(StartError, match="BOATYARD_HOME: must be UTF-8"):
        load_settings(ExampleSettings)


@pytest.mark.parametrize(
    "listen", ["", "7460", ":7460", "localhost:", "localhost:x", "localhost:99999", "8.8.8.8:1", "unix:x", "unix:/"]
)
def test_nodes_listen_at_sockets_and_on_loopback_alone(listen: str) -> None:
    with pytest.raises(ValueError, match="listen"):
        ExampleSettings(listen=listen)
    assert ExampleSettings(listen="unix:/srv/x.sock").listen == "unix:/srv/x.sock"


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.8.8.8", "[::1]", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "example.org", "10.0.0.1")] == [False] * 4


def test_processes_that_start_at_once_get_one_token(home: Home) -> None:
    program = "from services.common.home import Home; print(Home.from_environment().cell_token())"
    environment = {**os.environ, "BOATYARD_HOME": str(home.root)}
    processes = [Popen([sys.executable, "-c", program], env=environment, stdout=PIPE, text=True) for _ in range(4)]
    tokens = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert tokens == {home.cell_token()}
    assert len(tokens.pop()) >= 43


def test_threads_that_start_at_once_get_one_token_and_nothing_is_left_beside_it(home: Home) -> None:
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: home.admin_token(), range(64)))
    assert len(tokens) == 1
    assert [path.name for path in home.root.iterdir()] == ["token"]
    assert stat.S_IMODE(home.admin_token_file.stat().st_mode) == 0o600


def test_directories_are_private(home: Home) -> None:
    path = home.directory("upper", "lower")
    assert path == home.root / "upper" / "lower"
    for made in (home.root, path.parent, path):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


def given(path: Path) -> None:
    path.mkdir(parents=True)
    os.chown(path, 1234, 1234)


def linked(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    given(path.parent / "theirs")
    path.symlink_to(path.parent / "theirs")


def linked_by_another(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    (path.parent / "ours").mkdir()
    path.symlink_to(path.parent / "ours")
    os.chown(path, 1234, 1234, follow_symlinks=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("names", [(), ("run",)])
@pytest.mark.parametrize("made", [given, linked, linked_by_another])
def test_what_another_user_has_made_is_not_used(home: Home, made: Callable[[Path], None], names: tuple[str]) -> None:
    made(home.root.joinpath(*names))
    with pytest.raises(StartError, match=rf"{home.root.joinpath(*names)} belongs to user 1234.*BOATYARD_HOME"):
        home.directory(*names)
    assert not home.admin_token_file.exists()


@pytest.mark.parametrize("names", [(), ("run",)])
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_that_everybody_may_write_in_is_not_used(home: Home, mode: int, names: tuple[str]) -> None:
    home.directory(*names).chmod(mode)
    with pytest.raises(StartError, match=rf"{home.root.joinpath(*names)} may be changed by every user.*BOATYARD_HOME"):
        home.directory(*names)


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="there is no volume in which everybody may write")
def test_a_volume_that_everybody_may_write_in_is_used() -> None:
    assert Home(Path("/dev/shm")).directory() == Path("/dev/shm")
    assert data_directory(Home(Path("/dev/shm"))).status == WARN


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_what_is_made_for_it_is_not_everybodys_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    home = Home(tmp_path / "share" / "more" / "home")
    before = os.umask(umask)
    try:
        assert home.directory("run") == home.root / "run"
    finally:
        os.umask(before)
    assert home.directory("run").stat().st_mode & 0o777 == 0o700
    assert data_directory(home).status == OK


@pytest.mark.parametrize("way", ["everybodys/home", "a link/home", "everybodys/a link"])
def test_a_directory_that_everybody_may_replace_is_not_used(tmp_path: Path, way: str) -> None:
    (place := tmp_path / "everybodys").mkdir()
    (tmp_path / "a link").symlink_to(place)
    (place / "a link").symlink_to(tmp_path / "ours")
    (tmp_path / "ours").mkdir()
    home = Home(tmp_path / way)
    place.chmod(0o777)
    with pytest.raises(StartError, match=f"{home.root} may be replaced by every user of the machine: chmod o-w"):
        home.directory()
    found = data_directory(home)
    assert (found.status, found.mend.startswith("chmod o-w")) == (FAIL, True), "doctor says it before"
    place.chmod(0o1777)
    assert home.directory() == home.root


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_a_token_that_another_user_has_put_there_is_refused(home: Home) -> None:
    for made in (home.admin_token, home.cell_token):
        made()
    for path, read in ((home.admin_token_file, home.admin_token), (home.cell_token_file, home.cell_token)):
        os.chown(path, 1234, 1234)
        with pytest.raises(StartError, match=rf"{path} belongs to user 1234.*delete it"):
            read()
    os.chown(home.root, 1234, 1234)
    assert read_token(home.admin_token_file), "root uses the homes of others"


def test_a_token_that_is_no_secret_is_refused_with_the_mend(home: Home) -> None:
    home.admin_token()
    home.admin_token_file.chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        home.admin_token()
    home.admin_token_file.write_text("")
    home.admin_token_file.chmod(0o600)
    with pytest.raises(StartError, match="is empty"):
        home.admin_token()
    with pytest.raises(StartError, match="No such file"):
        read_token(home.root / "absent")


def test_what_is_wrong_in_a_list_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_EXECUTION_ALLOWED_TIERS", "bubblewrap,bubblewrp")
    with pytest.raises(StartError, match="BOATYARD_EXECUTION_ALLOWED_TIERS: Input should be"):
        load_settings(ExecutionSettings)
