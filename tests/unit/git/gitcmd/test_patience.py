"""A git that waits in silence is ended, and one that works is not, with programs in git's place."""

import asyncio
import sys
from pathlib import Path

import pytest

from services.git.gitcmd import Command, Git, GitSilent, Invocation
from tests.kit.processes import with_marker

SILENCE_SECONDS = 0.6
# Each takes longer than that.
AT_WORK = {
    "says something now and then": "for _ in 1 2 3 4 5 6 7 8; do echo; sleep 0.1; done",
    "has a child that does": "(for _ in 1 2 3 4 5 6 7 8; do echo > /dev/null; sleep 0.1; done) & wait",
    "computes": "timeout 0.8 sh -c 'while :; do :; done'; true",
}
SILENT = {
    "waits": "exec sleep 60",
    "has said something": "echo so far; exec sleep 60",
    "has a child that waits": "sleep 60 & wait",
    "has an ssh that talks about its connection alone": "./ssh & wait",
}


def program(directory: Path, script: str) -> Git:
    for name, text in {"git": script, "ssh": "while :; do echo > /dev/null; sleep 0.05; done"}.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return Git(directory / "git", directory)


@pytest.mark.slow  # its time on the processor is not seen in a shorter time
async def test_who_asks_a_silent_connection_again_and_again_is_silent(tmp_path: Path) -> None:
    git = program(tmp_path, f"exec {sys.executable} -c 'import time\nwhile True: time.sleep(0.02)'")
    with pytest.raises(GitSilent):
        await git.run(Command("version"), Invocation(silence_seconds=4, timeout_seconds=30))


@pytest.mark.parametrize("script", SILENT.values(), ids=SILENT)
async def test_silence_is_ended_with_all_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", marker := str(tmp_path))
    git = program(tmp_path, script)
    with pytest.raises(GitSilent, match="in which nothing came or went"):
        await git.run(Command("version"), Invocation(protocol="ssh", silence_seconds=0.2))
    assert not with_marker(marker)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=name, marks=() if name == "computes" else pytest.mark.slow)
        for name, script in AT_WORK.items()
    ],
)
async def test_work_is_not(tmp_path: Path, script: str) -> None:
    await program(tmp_path, script).run(Command("version"), Invocation(silence_seconds=SILENCE_SECONDS))


async def test_silence_that_begins_right_after_a_look_ends_in_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds / 100)

    monkeypatch.setattr(asyncio, "sleep", recorded)
    with pytest.raises(GitSilent):
        await program(tmp_path, "exec sleep 60").run(Command("version"), Invocation(silence_seconds=50))
    assert pauses[0] + sum(pauses[-10:]) <= 50 + 1e-9, "what was said right before the first look counts at it"
