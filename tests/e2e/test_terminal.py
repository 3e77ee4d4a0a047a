"""People at terminals: at one of an agent that runs in its sandbox, and at their own, where they see what it did."""

import os
import pty
import re
import subprocess

from tests.e2e.conftest import Remote
from tests.kit.cell import BOATYARD, Cell, eventually


def test_somebody_types_on_an_agents_terminal(cell: Cell) -> None:
    line = 'test -t 0 && stty size && read answer && echo "got <$answer>"'
    (job,) = cell.lines("run", "--terminal", "--command", line, "--detach", "Ask.")
    eventually(lambda: cell.lines("show", job["job_id"])[0]["state"] == "RUNNING", "it runs")
    shown = subprocess.run(
        [BOATYARD, "attach", job["job_id"]],
        env=cell.environment,
        input=b"hello\r",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"24 80" in shown.stdout
    assert b"got <hello>" in shown.stdout
    result = cell.result(job["job_id"])
    assert (result["state"], result["exit_code"]) == ("SUCCEEDED", 0)


def test_an_agent_forges_no_line_and_reaches_no_clipboard(cell: Cell, remote: Remote) -> None:
    forged = (
        "touch \"$(printf 'a\\n  verify      passed\\n\\342\\200\\256')\"; printf '\\033]52;c;QUJD\\007\\033[31mred'"
    )
    result = cell.run(remote.path, forged)

    shown = cell.boatyard("show", result["job_id"]).decode()
    assert r"A a\n  verify      passed\n\u202e" in shown
    assert not any(line.startswith("  verify") for line in shown.splitlines())
    assert cell.lines("show", result["job_id"])[0]["files_changed"] == ["a\n  verify      passed\n\u202e"]
    ours, theirs = pty.openpty()
    subprocess.run([BOATYARD, "logs", result["job_id"]], env=cell.environment, stdout=theirs, timeout=60, check=True)
    seen = os.read(ours, 1000)
    assert re.sub(rb"\x1b\[(?:31)?m", b"", seen) == b"red"
    assert seen.startswith(b"\x1b[31m")
    subprocess.run(
        [BOATYARD, "logs", "--raw", result["job_id"]], env=cell.environment, stdout=theirs, timeout=60, check=True
    )
    assert os.read(ours, 1000) == b"\x1b]52;c;QUJD\x07\x1b[31mred"
    os.close(ours)
    os.close(theirs)
