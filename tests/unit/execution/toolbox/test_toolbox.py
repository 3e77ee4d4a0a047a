"""The tools as the runner has them: a process that takes lines of JSON."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.execution import toolbox

Call = Callable[..., tuple[str, bool]]


@contextlib.contextmanager
def started(directory: Path) -> Iterator[Call]:
    process = subprocess.Popen(toolbox.ARGV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=directory)
    assert process.stdin
    assert process.stdout
    assert json.loads(process.stdout.readline()) == {"ready": True}
    count = 0

    def call(tool: str, **arguments: object) -> tuple[str, bool]:
        nonlocal count
        count += 1
        process.stdin.write(json.dumps({"id": count, "tool": tool, "input": arguments}).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["id"] == count
        return answer["output"], answer["is_error"]

    try:
        yield call
    finally:
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        process.stdout.close()


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    with started(tmp_path) as caller:
        yield caller


def test_a_shell_stays(call: Call) -> None:
    assert call("bash", command="mkdir -p a; cd a; X=5; f() { echo f$1; }") == ("", False)
    output, _ = call("bash", command="pwd; f $X  # a comment")
    assert output.endswith("/a\nf5")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo out; echo err >&2", "out\nerr"),
        ("false", "[exit code 1]"),
        ('read line; echo "got:$line"', "got:"),
        ("cat <<X\nhere\nX", "here"),
        ("(sleep 300 &) ; echo begun", "begun"),
        ("printf 'no newline'", "no newline"),
        ("printf '\\xff\\xfe'", "��"),
        ("exit 7", "[exit code 7; it ended the shell itself: the next command gets a new one]"),
        ("kill -9 $$", "[signal 9; it ended the shell itself: the next command gets a new one]"),
        (": " + "x" * 300_000, ""),
    ],
)
def test_commands_of_every_kind(call: Call, command: str, output: str) -> None:
    assert call("bash", command=command) == (output, False)
    assert call("bash", command="echo again") == ("again", False)


def test_what_does_not_parse_hurts_no_later_call(call: Call) -> None:
    output, _ = call("bash", command="echo 'unclosed")
    assert "unexpected EOF" in output
    assert call("bash", command="echo again") == ("again", False)


def test_a_timeout_ends_the_whole_group_and_says_so(call: Call, tmp_path: Path) -> None:
    began = time.monotonic()
    output, is_error = call(
        "bash", command="cd /tmp; echo $$ > " + f"{tmp_path}/pid; sleep 60 & sleep 61", timeout_seconds=1
    )
    assert time.monotonic() - began < 10
    assert is_error
    assert "took longer than 1 s" in output
    group = int((tmp_path / "pid").read_text())
    assert _alive(group) == []
    assert call("bash", command="pwd") == ("/tmp", False)


def test_a_flood_is_cut_and_its_ends_are_kept(call: Call) -> None:
    output, _ = call("bash", command="echo first; yes | head -c 5000000; echo last")
    assert output.startswith("first\ny\n")
    assert output.endswith("\nlast")
    assert len(output) < 31_000
    assert "left out" in output


def test_a_restart_begins_anew(call: Call, tmp_path: Path) -> None:
    call("bash", command="cd /; X=5")
    assert call("bash", restart=True)[1] is False
    assert call("bash", command="pwd; echo $X") == (str(tmp_path), False)


def test_files_are_made_seen_and_changed(call: Call, tmp_path: Path) -> None:
    assert call("create", path="a/b.txt", content="one\ntwo\nthree")[1] is False
    assert call("view", path="a/b.txt", first_line=2, last_line=2) == ("     2\ttwo", False)
    call("replace", path="a/b.txt", old="two", new="2")
    call("insert", path="a/b.txt", after_line=0, text="zero")
    call("insert", path="a/b.txt", after_line=4, text="four")
    assert (tmp_path / "a" / "b.txt").read_text() == "zero\none\n2\nthree\nfour\n"
    assert call("view", path=".") == ("a/\na/b.txt", False)


def test_bytes_that_are_no_text_survive_a_change(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"caf\xe9 old\r\n")
    assert call("replace", path="file", old="old", new="new")[1] is False
    assert file.read_bytes() == b"caf\xe9 new\r\n"


@pytest.mark.parametrize(
    ("tool", "arguments", "word"),
    [
        ("view", {"path": "none"}, "No such file"),
        ("view", {"path": "/dev/zero"}, "no regular file"),
        ("view", {"path": "pipe"}, "no regular file"),
        ("view", {"path": "binary"}, "binary"),
        ("view", {"path": "file", "first_line": 9}, "only 2 lines"),
        ("replace", {"path": "file", "old": "x", "new": "y"}, "2 times"),
        ("replace", {"path": "file", "old": "z", "new": "y"}, "does not stand there"),
        ("insert", {"path": "file", "after_line": 3, "text": ""}, "from 0 to 2"),
        ("search", {"pattern": "("}, "no regular expression"),
        ("bash", {}, "command is required"),
        ("bash", {"command": "true", "timeout_seconds": 6000}, "from 1 to 600"),
        ("nothing", {}, "there is no tool"),
    ],
)
def test_what_cannot_be_done_is_said(call: Call, tmp_path: Path, tool: str, arguments: dict, word: str) -> None:
    (tmp_path / "file").write_text("x\nx\n")
    (tmp_path / "binary").write_bytes(b"\0\1")
    os.mkfifo(tmp_path / "pipe")
    output, is_error = call(tool, **arguments)
    assert is_error
    assert word in output


def test_a_search_finds_lines(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def one():\n    pass\n")
    (tmp_path / "b.txt").write_text("def two():\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c.py").write_text("def three():\n")
    assert call("search", pattern=r"def \w+", glob="*.py") == ("a.py:1:def one():", False)
    assert call("search", pattern="def", max_results=1)[0] == "a.py:1:def one():\n[only the first 1 are shown]"
    assert call("search", pattern="four") == ("nothing matches", False)


def _alive(group: int) -> list[str]:
    """The processes of a group, but for those that have ended and wait to be counted."""
    stats = [_stat(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [fields for fields in stats if fields and fields.split()[2] == str(group) and fields[0] not in "ZX"]


def _stat(entry: Path) -> str:
    with contextlib.suppress(OSError):
        return (entry / "stat").read_text().rpartition(") ")[2]
    return ""
