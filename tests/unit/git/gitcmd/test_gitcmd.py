"""Git is started from the table or not at all, with bounds, and it dies with whoever waits for it."""

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.git.gitcmd import (
    Command,
    Git,
    GitFailed,
    GitTimedOut,
    Invocation,
    OutputTooLarge,
    build_environment,
    commands,
    git_argv,
)
from services.git.gitcmd.commands import COMMANDS
from services.git.gitcmd.errors import scrub
from tests.kit.cell import eventually
from tests.kit.processes import with_marker


def fake_git(directory: Path, script: str) -> Git:
    """A program in git's place, for failures that git has no switch for."""
    program = directory / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Git(program, directory)


@pytest.mark.parametrize(
    "command",
    [
        Command("filter-branch"),
        Command("fetch", ("--upload-pack",)),
        Command("fetch", ("--exec=/bin/sh",)),
        Command("fetch", ("-c",)),
        Command("fetch", ("origin",)),
        Command("fetch", (b"--quiet\0",)),
        Command("fetch", (), ("--upload-pack=sh",)),
        Command("fetch", (), (b"a\0b",)),
        Command("rev-parse", ("--verify",), ("-x",)),
        Command("fetch", (), ("origin",), (b"path",)),
    ],
)
def test_what_is_not_in_the_table_is_refused(command: Command) -> None:
    with pytest.raises(ValueError, match="git"):
        git_argv(command)


@given(st.sampled_from(sorted(COMMANDS)), st.lists(st.binary()))
def test_no_argument_is_ever_taken_for_a_flag(name: str, args: list[bytes]) -> None:
    spec = COMMANDS[name]
    try:
        argv = git_argv(Command(name, (), tuple(args)))
    except ValueError:
        assert any(arg.startswith(b"-") or b"\0" in arg for arg in args)
        return
    before_args = argv[: argv.index(args[0])] if args else argv
    assert not args or not spec.end_of_options or b"--end-of-options" in before_args


def test_the_table_allows_no_more_than_is_used() -> None:
    folder = Path(commands.__file__).parents[1]
    source = "".join(path.read_text() for path in folder.rglob("*.py") if path != Path(commands.__file__))
    for name, spec in COMMANDS.items():
        assert f'Command("{name}"' in source, f"nothing runs git {name}"
        for flag in spec.flags - {commands.STRICT_FLAG}:
            assert f'"{flag}' in source, f"nothing gives git {name} {flag}"


def test_paths_come_after_two_dashes() -> None:
    assert git_argv(Command("ls-files", ("-z",), (), (b"--odd",)))[-2:] == (b"--", b"--odd")


def test_the_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("LD_PRELOAD", "/evil.so")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    quiet = build_environment(tmp_path)
    assert not {"GIT_DIR", "LD_PRELOAD", "HTTPS_PROXY"} & quiet.keys()
    assert quiet["GIT_ALLOW_PROTOCOL"] == "none"
    loud = build_environment(tmp_path, config=[("a.b", "c")], protocol="https", network=True)
    assert loud["HTTPS_PROXY"] == "http://proxy:3128"
    last = int(loud["GIT_CONFIG_COUNT"]) - 1
    assert (loud[f"GIT_CONFIG_KEY_{last}"], loud[f"GIT_CONFIG_VALUE_{last}"]) == ("a.b", "c")


async def test_helpers_of_transport_are_refused_by_git_itself(tmp_path: Path) -> None:
    git = Git(Path("/usr/bin/git"), tmp_path)
    canary = tmp_path / "canary"
    with pytest.raises(GitFailed, match="not allowed"):
        await git.run(Command("ls-remote", (), (f"ext::touch {canary}",)), Invocation(protocol="file"))
    assert not canary.exists()


async def test_a_failure_says_what_git_said_without_secrets(tmp_path: Path) -> None:
    git = fake_git(
        tmp_path, "echo 'Receiving objects:  50% (1/2)' >&2; echo 'fatal: s3cret at https://u:p@host/x' >&2; exit 9"
    )
    with pytest.raises(GitFailed) as failure:
        await git.run(Command("version"), Invocation(secrets=("s3cret",)))
    assert failure.value.code == 9
    assert failure.value.stderr == "fatal: [hidden] at https://host/x"


async def test_lines_are_handed_on_as_they_come(tmp_path: Path) -> None:
    lines: list[str] = []
    git = fake_git(tmp_path, "printf 'one\\rtwo s3cret\\nthree\\n' >&2")
    await git.run(Command("version"), Invocation(on_message=lines.append, secrets=("s3cret",)))
    assert lines == ["one", "two [hidden]", "three"]


async def test_output_is_bounded(tmp_path: Path) -> None:
    git = fake_git(tmp_path, "exec yes")
    with pytest.raises(OutputTooLarge):
        await git.run(Command("version"), Invocation(output_limit=1000))


async def test_what_git_says_is_bounded(tmp_path: Path) -> None:
    git = fake_git(tmp_path, "yes complaint | head -c 3000000 >&2; exit 1")
    with pytest.raises(GitFailed) as failure:
        await git.run(Command("version"))
    assert len(str(failure.value)) < 20_000


@pytest.mark.parametrize("deaf", ["", "trap '' TERM;", "(trap '' TERM; sleep {marker}) & exec"])
async def test_time_is_bounded_and_children_die_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: str) -> None:
    monkeypatch.setattr("services.git.gitcmd.process._GRACE_SECONDS", 0.2)
    marker = f"3{os.getpid()}{len(deaf)}"
    git = fake_git(tmp_path, f"{deaf.format(marker=marker)} sleep {marker}")
    with pytest.raises(GitTimedOut, match=r"0\.3 s"):
        await git.run(Command("version"), Invocation(timeout_seconds=0.3))
    # What was killed is not gone in the same instant.
    eventually(lambda: with_marker(f"sleep\0{marker}") == [], "all children are dead")


async def test_a_cancelled_caller_ends_git_politely(tmp_path: Path) -> None:
    git = fake_git(tmp_path, "trap 'echo politely >said; exit' TERM; echo >started; while :; do sleep 0.05; done")
    task = asyncio.create_task(git.run(Command("version")))
    while not (tmp_path / "started").exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "said").read_text() == "politely\n"


async def test_a_stream_can_be_left(tmp_path: Path) -> None:
    git = fake_git(tmp_path, "exec yes")
    async with aclosing(git.stream(Command("version"), Invocation())) as chunks:
        assert await anext(chunks)
    with pytest.raises(GitFailed):
        async for _ in fake_git(tmp_path, "exit 3").stream(Command("version"), Invocation()):
            pass


@given(st.text(min_size=8), st.text(), st.text())
def test_a_secret_never_survives_scrubbing(secret: str, before: str, after: str) -> None:
    if secret not in "[hidden]":
        assert secret not in scrub(f"{before}{secret}{after}", [secret]).replace("[hidden]", "")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:pass@host/x", "https://host/x"),
        ("Authorization: Basic abc==", "Authorization: [hidden]"),
        ("git@host:path", "git@host:path"),
    ],
)
def test_scrubbing(text: str, clean: str) -> None:
    assert scrub(text) == clean
