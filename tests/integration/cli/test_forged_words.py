"""Whatever a gateway says, and whoever chose it: no command shows it as more than a part of a line."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from rich.cells import cell_len

from services.cli.main import COMMANDS, cli, main
from tests.kit.hostile import FORGED, HOSTILE, hostile_gateway, terminal

COLUMNS = 100
COLOUR = re.compile(r"\x1b\[[0-9:;]*m")
SPINNER = re.compile(r"\x1b\[(?:\?25[lh]|2K|1A)|\r")
"""What rich itself writes while `run` waits for nothing that an agent writes."""
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
SAYS_NOTHING_OF_A_GATEWAY = {"up", "down", "coordinator", "doctor", "attach", "login"}
PRINTS_AN_ID = {"create", "update", "move", "enable", "disable", "rotate"}
"""Which is not folded, as it is there to be copied."""
NEEDED = {"hook create": ["--command", "x"], "hook update": ["--order", "1"], "keys rotate": ["--no-wait"]}
UPDATE = {"project", "repository", "template", "worker", "item"}


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
            if not command.invoke_without_command:
                continue
        yield f"{path}{name}", command


def arguments_of(path: str, command: click.Command) -> list[str]:
    arguments = [*path.split(), *NEEDED.get(path, [])]
    if path.endswith(" update") and path.removesuffix(" update") in UPDATE:
        arguments += ["--clear", next(p for p in command.params if p.name == "clear").type.choices[0]]
    for parameter in command.params:
        if parameter.required or isinstance(parameter, click.Argument):
            value = parameter.type.choices[0] if isinstance(parameter.type, click.Choice) else "x"
            taken = parameter.opts[:1] if isinstance(parameter, click.Option) else []
            if not any(option in arguments for option in taken):
                arguments += [*taken, value]
    return arguments


CASES = [
    (path, arguments_of(path, command))
    for path, command in leaves(cli)
    if path.split()[0] not in SAYS_NOTHING_OF_A_GATEWAY
]


def boatyard(*arguments: str) -> None:
    sys.argv = ["boatyard", *arguments]
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in {0, 1, 2, 3, 5}


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with hostile_gateway() as address:
        yield address


@pytest.fixture(scope="module")
def refusing_gateway() -> Iterator[str]:
    with hostile_gateway(refuses=True) as address:
        yield address


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("argv", "stdin", "stdout", "stderr"):  # which the command line makes its own
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setenv("BOATYARD_HOME", str(tmp_path))
    for name, value in {"BOATYARD_TOKEN": "t", "TERM": "xterm", "COLUMNS": str(COLUMNS)}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "BOATYARD_PROJECT", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("x", "long-enough")  # the secret that is set
    monkeypatch.setenv("BOATYARD_INSECURE", "1")  # their gateway listens at a port, without a certificate


def check(shown: str, *, width: int | None = None) -> None:
    for line in shown.split("\n"):
        plain = COLOUR.sub("", line)
        assert not OBEYED.search(plain.replace("\t", " ")), plain
        assert not plain.lstrip().startswith(FORGED), plain
        assert width is None or cell_len(plain) <= width, plain


def test_the_cases_are_all_commands() -> None:
    assert {path.split()[0] for path, _ in CASES} == set(COMMANDS) - SAYS_NOTHING_OF_A_GATEWAY
    assert len(CASES) > 50


@pytest.mark.parametrize(("path", "arguments"), CASES, ids=[path for path, _ in CASES])
def test_a_command_shows_no_more_than_parts_of_lines(
    path: str, arguments: list[str], gateway: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOATYARD_GATEWAY_ADDRESS", gateway)
    with terminal(COLUMNS) as shown:
        boatyard(*arguments)

    assert shown or path.endswith("forget")
    check(
        SPINNER.sub("" if path == "run" else r"\g<0>", b"".join(shown).decode()),
        width=None if path.rsplit(maxsplit=1)[-1] in PRINTS_AN_ID else COLUMNS,
    )
    if path not in {
        "logs",
        "run",
        "diff",
        "artifact",
        "record get",
    }:  # what an agent wrote is passed to programs as it is
        boatyard(*arguments)
        captured = capfd.readouterr()
        check(captured.out)
        check(captured.err)


@pytest.mark.parametrize("arguments", [["show", "x"], ["run", "x"], ["logs", "x"], ["ps"], ["hook", "list"]])
def test_an_error_is_a_line_and_what_is_quoted(
    arguments: list[str],
    refusing_gateway: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BOATYARD_GATEWAY_ADDRESS", refusing_gateway)
    with terminal(COLUMNS) as shown:
        boatyard(*arguments)

    text = b"".join(shown).decode()
    assert "Error" in text
    check(text)


def test_json_has_the_words_as_they_are(
    gateway: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOATYARD_GATEWAY_ADDRESS", gateway)
    boatyard("show", "x", "--json")

    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["message"] == HOSTILE
    assert json.loads(line)["files_changed"][0] == HOSTILE


def test_raw_output_is_the_agents(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_GATEWAY_ADDRESS", gateway)
    with terminal(COLUMNS) as shown:
        boatyard("logs", "x", "--raw")

    assert b"\x1b]52;c;QUJD\x07" in b"".join(shown)
