"""One line of log is one JSON object, whoever writes it."""

import contextlib
import json
import os
import pty
import re
import sys
from subprocess import run

COLOUR = re.compile(r"\x1b\[[0-9:;]*m")
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")

PROGRAM = """
import logging, structlog
from services.common import logs, program

async def main():
    with logs.request("request-1"):
        structlog.get_logger().info("made", workspace_id="w-1")
        logging.getLogger("elsewhere").warning("odd %s", 1)
        logging.getLogger("grpc._cython.cygrpc").error("a client left")
        structlog.get_logger().debug("unseen")
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().exception("broken")

program.run("example", main)
"""


def test_lines_are_json_with_the_request_and_the_service() -> None:
    done = run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["event"], line["level"], line.get("request_id")) for line in lines] == [
        ("made", "info", "request-1"),
        ("odd 1", "warning", "request-1"),
        ("broken", "error", None),
    ]
    assert all(line["service"] == "example" and line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["workspace_id"] == "w-1"
    assert "ValueError: why" in lines[2]["exception"]


def test_what_others_chose_is_part_of_a_line() -> None:
    hostile = "x\x1b]0;t\x07\x9b2J\u202e\u2028\x85\x7f\nFORGED"
    program = (
        PROGRAM.replace('"why"', repr(hostile)).replace('"w-1"', repr(hostile)).replace('"odd %s", 1', repr(hostile))
    )
    in_a_file = run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True).stderr

    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in in_a_file)
    lines = [json.loads(line) for line in in_a_file.splitlines()]
    assert [lines[0]["workspace_id"], lines[1]["event"]] == [hostile, hostile]
    on_a_terminal = COLOUR.sub("", shown_on_a_terminal(program).decode().replace("\r\n", "\n"))
    assert not OBEYED.search(on_a_terminal)
    before_the_traceback = on_a_terminal.partition("broken")[0]
    assert r"x\x1b]0;t" in before_the_traceback
    assert "\nFORGED" not in before_the_traceback


def test_a_traceback_on_a_terminal_shows_no_local_variables() -> None:
    program = PROGRAM.replace("try:", "password = 'hunter' + '2'\n    try:")
    shown = shown_on_a_terminal(program)
    assert b"ValueError" in shown
    assert b"hunter2" not in shown


def shown_on_a_terminal(program: str) -> bytes:
    ours, terminal = pty.openpty()
    run([sys.executable, "-c", program], stderr=terminal, timeout=30, check=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal reads
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    return shown
