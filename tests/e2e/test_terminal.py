"""`boatyard attach`: somebody at the terminal of an agent that runs in its sandbox."""

import subprocess

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
