"""The command line as a process, where no gateway is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from boatyard.gateway.v1 import job_pb2
from click.testing import CliRunner

from services.cli import checks
from services.cli.commands import ps
from services.cli.job_request import check_there, repository_url
from services.cli.local_repository import commit_uncommitted, uncommitted
from services.cli.main import COMMANDS, cli
from services.common.home import Home
from services.common.lock import FileLock
from services.supervisor.plan import cell_file, supervisor_lock
from tests.kit.cell import BOATYARD
from tests.kit.repos import Repo


def boatyard(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"PATH": os.environ["PATH"], "BOATYARD_HOME": str(home)}
    return subprocess.run(
        [BOATYARD, *arguments], env=settings | environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_speaks_json(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output

    named = cli.get_command(click.Context(cli), command)
    for name, each in named.commands.items() if isinstance(named, click.Group) else ():
        assert each.help, name
        assert any("--json" in parameter.opts for parameter in each.params), name


def fault(**environment: str) -> list[str]:
    hostile = "x\x1b]0;t\x07\nFORGED"
    script = f"""
import services.cli.main as m
def fail(**_): raise ValueError({hostile!r})
m.cli.main = fail
m.main()
"""
    result = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    return result.stderr.splitlines()


def test_a_fault_of_ours_is_a_sentence_with_words_of_others_behind_a_bar() -> None:
    first, second = fault()

    assert first == (
        "Error: this is a fault of Boatyard's command line (BOATYARD_TRACEBACK=1 shows where it is): ValueError:"
        r" x\x1b]0;t\x07"
    )
    assert second == "  │ FORGED"


def test_a_fault_of_ours_shows_where_it_is_to_who_asks() -> None:
    first, *others = fault(BOATYARD_TRACEBACK="1")

    assert first.startswith("Traceback")
    assert all(line.startswith("  │ ") for line in others)
    assert r"x\x1b]0;t\x07" in others[-2]


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; sys.argv = ['boatyard', '--help']; import services.cli.main as m\n"
    script += "try: m.main()\nexcept SystemExit: print([n for n in ('grpc', 'rich', 'pydantic') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "module", ["services.cli.commands.run", "services.cli.commands.ps", "services.cli.commands.up"]
)
def test_a_command_imports_what_services_need_only_there(module: str) -> None:
    script = f"import sys, {module}; print([n for n in ('pydantic', 'sqlalchemy', 'psycopg') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["run"], ["run", "--sandbox", "paper", "x"], ["logs", "--from", "0", "x"]]
)
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    result = boatyard(*arguments, home=tmp_path)

    assert (result.returncode, result.stdout) == (2, "")
    assert "Error:" in result.stderr


def test_what_is_no_address_is_called_so(tmp_path: Path) -> None:
    result = boatyard("ps", home=tmp_path, BOATYARD_GATEWAY_ADDRESS="gateway", BOATYARD_TOKEN="any")

    assert (result.returncode, "must be host:port" in result.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [["ps"], ["logs", "x"], ["run", "--repo", ".", "x"]])
def test_nobody_there(arguments: list[str], tmp_path: Path) -> None:
    result = boatyard(*arguments, "--json", home=tmp_path, BOATYARD_TOKEN="any")

    assert (result.returncode, result.stdout) == (4, "")
    assert "is `boatyard up` running?" in json.loads(result.stderr)["message"]


def test_nothing_to_show(tmp_path: Path) -> None:
    result = boatyard("ps", home=tmp_path)

    assert result.returncode == 4
    assert f"no token in {tmp_path}/token" in result.stderr


def test_the_cell_of_an_earlier_version_is_to_be_restarted(tmp_path: Path) -> None:
    home = Home(tmp_path)
    cell_file(Home(home.directory("run").parent)).write_text(json.dumps({"addresses": {"gateway": "127.0.0.1:1"}}))
    lock = FileLock(supervisor_lock(home))
    try:
        asked = boatyard("ps", home=tmp_path, BOATYARD_TOKEN="any")
        (finding,) = checks.services(home, checks_database=True, starts=False)
    finally:
        lock.release()

    assert asked.returncode == 4
    assert "started by an earlier version of Boatyard" in asked.stderr
    assert (finding.status, "without sockets" in finding.message) == ("fail", True)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_a_token_is_not_sent_to_who_cannot_prove_anything(host: str, tmp_path: Path) -> None:
    result = boatyard("ps", home=tmp_path, BOATYARD_TOKEN="any", BOATYARD_GATEWAY_ADDRESS=f"{host}:7460")

    assert result.returncode == 4
    assert f"whoever listens at {host}:7460 would get the token" in result.stderr


def test_whoever_takes_the_risk_may_send_it(tmp_path: Path) -> None:
    there = {"BOATYARD_TOKEN": "any", "BOATYARD_GATEWAY_ADDRESS": "127.0.0.1:1"}
    result = boatyard("--insecure", "ps", home=tmp_path, **there)

    assert result.returncode == 4
    assert "no gateway answers at 127.0.0.1:1" in result.stderr


def test_doctor_exits_with_what_it_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o644)
    result = boatyard("doctor", "--json", home=tmp_path)

    findings = {finding["check"]: finding for finding in map(json.loads, result.stdout.splitlines())}
    assert result.returncode == 1
    assert findings["token"]["status"] == "fail"
    assert findings["token"]["mend"] == f"chmod 600 {tmp_path}/token"
    assert findings["services"]["status"] == "warn"
    assert {findings[check]["status"] for check in ("python", "interpreter", "git", "data directory")} == {"ok"}


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://host/r.git", "https://host/r.git"),
        ("git@host:team/r.git", "git@host:team/r.git"),
        ("host:r.git", "host:r.git"),
        ("/a/../r.git", "/r.git"),
    ],
)
def test_remotes_stay_as_they_are(given: str, url: str) -> None:
    assert repository_url(given) == url


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")

    assert repository_url(".") == str(tmp_path)
    assert repository_url("./a:b") == f"{tmp_path}/a:b"
    assert repository_url("~/r") == "/home/me/r"


@pytest.mark.parametrize("typed", [".", "sub", "sub/../sub/deep", "./sub/deep"])
def test_a_path_in_a_repository_is_that_repositorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    work = Repo.init(tmp_path / "work").path
    (work / "sub" / "deep").mkdir(parents=True)
    monkeypatch.chdir(work)
    assert repository_url(typed) == str(work)
    check_there(repository_url(typed), "unix:/run/gateway.sock")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("typo", "no git repository"),
        ("sub/typo", "no git repository"),
        ("../nothing", "no git repository"),
        ("../empty", "no git repository"),
        ("file", "is a file"),
        ("../all.bundle", "is a file"),
    ],
)
def test_a_path_without_a_repository_is_refused_where_the_cell_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, words: str
) -> None:
    (Repo.init(tmp_path / "work").path / "sub").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("work/file", "all.bundle"):
        (tmp_path / name).touch(0o644)
    monkeypatch.chdir(tmp_path / "work")
    for address in ("unix:/run/gateway.sock", "127.0.0.1:7460"):
        with pytest.raises(click.UsageError, match=words):
            check_there(repository_url(typed), address)
    check_there(repository_url(typed), "cell.example:7460")


def test_what_is_new_in_a_repository_without_a_commit_is_a_first_one(tmp_path: Path) -> None:
    work = Repo.init(tmp_path / "work")
    (work.path / "new").touch()
    assert uncommitted(work.path) == 1
    commit_id = commit_uncommitted(work.path)
    assert work.git("rev-list", "--count", commit_id) == "1"
    assert work.git("ls-tree", "--name-only", commit_id) == "new"
    assert work.git("for-each-ref") == ""


@pytest.mark.parametrize("arguments", [["run", "\udcff"], ["run", "--command", "\udcff", "x"], ["show", "\udcff"]])
def test_what_is_no_text_is_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    result = boatyard(*arguments, home=tmp_path)

    assert result.returncode == 2
    assert "must be UTF-8" in result.stderr


@pytest.mark.parametrize("token", ["a\nb", "\u00e9", "a b", "a\tb", "a\x7fb"])
def test_a_token_that_no_call_could_carry_is_refused_by_name(token: str, tmp_path: Path) -> None:
    result = boatyard("ps", home=tmp_path, BOATYARD_TOKEN=token, BOATYARD_GATEWAY_ADDRESS=f"unix:{tmp_path}/none")

    assert result.returncode == 4
    assert result.stderr.startswith("Error: BOATYARD_TOKEN holds")
    assert len(result.stderr.splitlines()) == 1


def test_the_cell_of_a_token_file_that_others_read_is_not_ended_and_the_file_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.directory("run")
    (home.directory("execution") / "execution.db").touch()
    home.cell_token()
    home.cell_token_file.chmod(0o644)

    result = boatyard("down", home=tmp_path)

    assert result.returncode == 1
    assert result.stderr == (
        f"Error: {home.cell_token_file} can be read by other users, so it is not a secret: chmod 600"
        f" {home.cell_token_file}\n"
    )


@pytest.mark.parametrize(
    ("spec", "output", "shown"),
    [
        ({"branch": "boatyard/job-1"}, {}, "boatyard/job-1"),
        ({"branch": "work"}, {}, "work"),
        ({"branch": "work"}, {"branch": "elsewhere"}, "elsewhere"),
        ({}, {}, ""),
    ],
)
def test_a_list_of_jobs_has_every_branch(spec: dict, output: dict, shown: str) -> None:
    """The usual one too: of a job that is named by its branch nobody has to know how those are made."""
    row = ps.row_of(job_pb2.Job(job_id="job-1", spec=spec, output=output))
    assert row[ps.COLUMNS.index("BRANCH")] == shown
