"""A log that cannot be written never fails its program, and says afterwards what is missing."""

import json
import os
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run

import pytest

from services.common.lossy import LossyFile
from tests.kit.disks import fill, needs_mount, small_disk


def notice(lines: int, why: str) -> str:
    return f"missing: {lines} ({why})"


@needs_mount
def test_what_has_no_room_is_dropped_and_counted_and_told_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = fill(disk)
        log = os.open(disk / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        file = LossyFile(log, notice)
        for number in range(3):
            data = b"%d\n" % number + b"x" * 5000 + b"\n"
            assert file.write(data) == len(data)
        assert file.lost_lines == 6
        ballast.unlink()
        file.write(b"after\n")
        file.write(b"more\n")
        os.close(log)
        assert (disk / "log").read_bytes() == b"missing: 6 (No space left on device)\nafter\nmore\n"


@needs_mount
def test_a_line_of_which_a_part_had_room_does_not_swallow_the_next(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - 4096)  # one block
        log = os.open(disk / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        LossyFile(log, notice).write(b"whole\n")
        file = LossyFile(log, notice)
        file.write(b"torn" * 2000 + b"\n")
        ballast.unlink()
        file.write(b"after\n")
        os.close(log)
        lines = (disk / "log").read_text().splitlines()
    assert lines[0] == "whole"
    assert lines[1].startswith("torntorn")
    assert lines[2:] == ["missing: 1 (No space left on device)", "after"]


@pytest.mark.parametrize("kind", ["no reader", "full", "closed", "not blocking"])
def test_no_descriptor_makes_a_write_fail(kind: str) -> None:
    reading, writing = os.pipe()
    if kind == "no reader":
        os.close(reading)
    elif kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), writing)
    elif kind == "not blocking":
        os.set_blocking(writing, False)
        os.write(writing, bytes(65536))
    file = LossyFile(writing, notice)
    if kind == "closed":
        os.close(writing)
    assert file.write(b"line\n") == 5
    assert file.lost_lines == 1


PROGRAM = """
import asyncio, logging, structlog, sys, warnings
from services.common import lossy, program

async def main():
    log = structlog.get_logger()
    for number in range(3):
        log.info("made", number=number)
    logging.getLogger("elsewhere").warning("odd")
    warnings.warn("a warning of Python's")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("broken")
    print("still here,", lossy.lost_lines() > 4)
    sys.stdout.flush()
    sys.stdin.readline()
    log.info("last")

program.run("example", main)
"""


@needs_mount
def test_a_service_goes_on_without_its_log_and_its_log_is_json_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = fill(disk)
        with (disk / "log").open("ab") as log:
            service = Popen([sys.executable, "-c", PROGRAM], stdin=PIPE, stdout=PIPE, stderr=log, text=True)
        assert service.stdout
        assert service.stdin
        assert service.stdout.readline() == "still here, True\n"
        ballast.unlink()
        service.communicate("go on\n", timeout=30)
        assert service.returncode == 0
        missing, last = map(json.loads, (disk / "log").read_text().splitlines())
    assert (missing["level"], missing["service"], missing["why"]) == ("warning", "example", "No space left on device")
    assert missing["lines"] > 4
    assert last["event"] == "last"


@pytest.mark.parametrize("stderr", ["closed", "/dev/full"])
def test_a_service_needs_no_standard_error(stderr: str) -> None:
    redirection = "2>&-" if stderr == "closed" else f"2>{stderr}"
    done = run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, PROGRAM],
        stdin=DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"still here")
