"""A model as the agent of a job, from the command line to the remote; the model is played from a script."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit import processes
from tests.kit.cell import BOATYARD, Cell, eventually, running_cell
from tests.kit.replay import Replay, bash, replaying, write_script

KEY = "sk-ant-end-to-end-4711"
USED = {"input": 1000, "output": 100}
DONE = {"text": "I counted on.", "usage": USED}
SCRIPTS = {
    "Yes. Blue": [  # the conversation after an answer: before the one that leads to it, whose words it has too
        {"text": "Blue, then.", "tools": [bash("echo blue > colour.txt")], "usage": USED},
        DONE,
    ],
    "Which colour": [
        {"text": "I ask.", "tools": [bash("mkdir -p .boatyard; echo 'Red or blue?' > .boatyard/ask")], "usage": USED},
        DONE,
    ],
    "Count on": [
        {"text": "I count.", "tools": [bash("echo 3 > counter.txt")], "usage": USED, "faults": ["529", "cut"]},
        DONE,
    ],
    "A count": [  # without a fault: of an answer that breaks off, what was said so far may have been shown already
        {"text": "I count.", "tools": [bash("echo 3 > counter.txt")], "usage": USED},
        DONE,
    ],
    "Go slowly": [
        *(
            {"text": f"Step {number}.", "tools": [bash(f"sleep 0.4; echo {number} >> steps.txt")], "usage": USED}
            for number in range(8)
        ),
        DONE,
    ],
    "Ask first": [
        {"text": "May I?", "tools": [bash("echo yes > allowed.txt")], "usage": USED},
        {"text": "And this?", "tools": [bash("echo no > denied.txt")], "usage": USED, "expects": "mind the gap"},
        DONE,
    ],
    "Never end": [{"text": f"{number}", "tools": [bash("echo x >> x.txt")], "usage": USED} for number in range(9)],
    "Sleep": [{"text": "Good night.", "tools": [bash("setsid -f sleep 997; sleep 998")], "usage": USED}, DONE],
}


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-replay-"))
    scripts = [
        write_script(directory / f"{number}.toml", replies, prompt=prompt)
        for number, (prompt, replies) in enumerate(SCRIPTS.items())
    ]
    with replaying(directory, *scripts) as playing:
        yield playing
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def cell(replay: Replay) -> Iterator[Cell]:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    with running_cell(directory, ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=replay.url) as running:
        yield running
    shutil.rmtree(directory)


def model(remote: Remote) -> list[object]:
    return ["run", "--repo", remote.path, "--engine", "anthropic", "--model", "claude-sonnet-5-5"]


def submit(cell: Cell, remote: Remote, prompt: str, *arguments: object) -> dict:
    (line,) = cell.lines(*model(remote), "--detach", *arguments, prompt)
    return line


@pytest.mark.slow
def test_a_model_changes_something_and_it_is_pushed(cell: Cell, remote: Remote) -> None:
    lines = cell.lines(*model(remote), "--verify", "grep -q 3 counter.txt", "Count on.")
    result = lines[-1]
    assert (result["state"], result["tests_passed"], result["files_changed"]) == ("SUCCEEDED", True, ["counter.txt"])
    # What the answer that broke off had begun with counts too: 1,000 tokens read, and 1 written.
    assert (result["tokens_used"], result["cost_usd"]) == (3201, pytest.approx(0.00801))
    assert remote.show(f"{result['branch']}:counter.txt") == "3"
    kinds = {line["kind"] for line in lines}
    assert {"text", "tool_call", "tool_result", "usage", "turn_end", "note"} <= kinds
    (job,) = cell.lines("show", result["job_id"])
    assert (job["summary"], job["turns"], job["tool_calls"]) == ("I counted on.", 2, 1)
    assert not [file for file in cell.home.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


@pytest.mark.slow
def test_what_a_model_does_is_shown_to_people(cell: Cell, remote: Remote) -> None:
    shown = subprocess.run(
        [shutil.which("boatyard", path=cell.environment["PATH"]), *map(str, model(remote)), "A count, please."],
        env=cell.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout == "I count.\nI counted on.\n"
    assert "→ bash echo 3 > counter.txt" in shown.stderr
    assert "1,000 tokens read, 100 written, $0.0030" in shown.stderr
    assert re.search(r"tokens +2,200, \$0\.0060", shown.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["execution", "gateway"])
def test_a_service_killed_in_mid_conversation(cell: Cell, remote: Remote, service: str) -> None:
    job = submit(cell, remote, "Go slowly.")
    eventually(lambda: b"tool_result" in cell.boatyard("logs", "--json", job["execution_id"], code=None), "it works")
    killed = cell.kill_service(service)
    cell.await_restart(service, killed)

    assert cell.result(job["job_id"])["state"] == "SUCCEEDED"
    events = cell.lines("logs", job["execution_id"])
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    said = [event["text"] for event in events if event["kind"] == "text"]
    assert said == [*(f"Step {number}." for number in range(8)), "I counted on."]
    assert remote.show(f"boatyard/{job['job_id']}:steps.txt").split() == [str(number) for number in range(8)]
    (shown,) = cell.lines("show", job["job_id"])
    assert (shown["tokens_used"], shown["turns"]) == (9 * 1100, 9)


@pytest.mark.slow
@pytest.mark.parametrize("services", [("execution",), ("gateway", "execution")])
def test_a_model_goes_on_when_all_who_had_its_keys_are_lost(
    cell: Cell, remote: Remote, services: tuple[str, ...]
) -> None:
    job = submit(cell, remote, "Go slowly.")
    eventually(lambda: b"tool_result" in cell.boatyard("logs", "--json", job["execution_id"], code=None), "it works")
    lock = (cell.home / "execution" / "runs" / job["execution_id"] / "lock").stat().st_ino
    holder = re.search(rf"POSIX\s+ADVISORY\s+WRITE\s+(\d+)\s+\S+:{lock}\s", Path("/proc/locks").read_text())
    assert holder
    killed = {service: cell.kill_service(service) for service in services}
    os.kill(int(holder[1]), signal.SIGKILL)
    for service, pid in killed.items():
        cell.await_restart(service, pid)
    result = cell.result(job["job_id"])
    assert result["state"] == "SUCCEEDED", (result["reason"], result["message"])
    notes = [event["text"] for event in cell.lines("logs", job["execution_id"]) if event["kind"] == "note"]
    assert any("a new one goes on where it was" in note for note in notes), notes


@pytest.mark.slow
def test_a_budget_ends_a_model_that_never_ends(cell: Cell, remote: Remote) -> None:
    job = submit(cell, remote, "Never end.", "--max-turns", "3")
    result = cell.result(job["job_id"])
    assert (result["state"], result["reason"], result["turns"]) == ("FAILED", "BUDGET_EXCEEDED", 3)
    assert result["files_changed"] == ["x.txt"], "what it has done is kept"
    assert remote.branches() == ["main"]


@pytest.mark.slow
def test_a_cancel_in_a_tool_leaves_nothing(cell: Cell, remote: Remote) -> None:
    job = submit(cell, remote, "Sleep.")
    mark = {"BOATYARD_EXECUTION_ID": job["execution_id"]}
    eventually(lambda: any("sleep 998" in line for line in processes.with_environment(mark).values()), "it sleeps")
    cell.boatyard("cancel", job["job_id"])
    assert cell.result(job["job_id"])["state"] == "CANCELLED"
    assert processes.with_environment(mark) == {}


@pytest.mark.slow
def test_without_a_model_it_is_refused_at_once(cell: Cell, remote: Remote) -> None:
    cell.boatyard("run", "--repo", remote.path, "--engine", "anthropic", "--detach", "Count on.", code=2)


@pytest.mark.slow
def test_without_a_key_the_job_is_refused_with_the_mend(remote: Remote) -> None:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    with running_cell(directory) as cell:
        arguments = ("--repo", remote.path, "--engine", "anthropic", "--model", "m", "--detach", "Count on.")
        refused = subprocess.run(
            [BOATYARD, "run", *map(str, arguments)], env=cell.environment, capture_output=True, text=True, check=False
        )
    shutil.rmtree(directory)
    assert refused.returncode == 2
    assert "boatyard provider create NAME --wire messages" in refused.stderr
    assert "ANTHROPIC_API_KEY" in refused.stderr


@pytest.mark.slow
def test_the_demo_without_a_key() -> None:
    demo = Path(__file__).parents[2] / "examples" / "demo" / "demo.sh"
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    done = subprocess.run([demo], env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NO MODEL IS ASKED" in done.stdout
    assert "+    return first.arrival < second.departure" in done.stdout
    assert re.search(r"verify +passed", done.stderr)
    assert re.search(r"tokens +15,142, \$0\.0\d+", done.stderr)
    assert "Make the tests pass." in done.stdout.rpartition("log --oneline")[2], "the branch is on the remote"


@pytest.mark.slow
def test_people_are_asked_and_may_say_something(cell: Cell, remote: Remote) -> None:
    job = submit(cell, remote, "Ask first.", "--ask-before", "bash")

    def asked(number: int) -> str | None:
        told = [
            event for event in cell.lines("logs", job["job_id"], code=None) if event["kind"] == "permission_request"
        ]
        return told[number]["permission_id"] if len(told) > number else None

    first = eventually(lambda: asked(0), "the model asks")
    cell.boatyard("tell", job["job_id"], "mind the gap")
    (answer,) = cell.lines("allow", job["job_id"], first)
    assert (answer["allowed"], answer["decided_by"]) == (True, "admin")
    (answer,) = cell.lines("deny", job["job_id"], first)
    assert answer["allowed"], "the first answer holds"
    second = eventually(lambda: asked(1), "the model asks again")
    (answer,) = cell.lines("deny", job["execution_id"], second, "--reason", "not this one")
    assert (answer["allowed"], answer["reason"]) == (False, "not this one")

    result = cell.result(job["job_id"])
    assert (result["state"], result["files_changed"]) == ("SUCCEEDED", ["allowed.txt"])
    events = cell.lines("logs", job["job_id"], "--kind", "message_delivered", "--kind", "permission_answer")
    assert [event["kind"] for event in events] == ["permission_answer", "message_delivered", "permission_answer"]
    assert events[1]["text"] == "mind the gap"
    cell.boatyard("tell", job["job_id"], "too late", code=2)


@pytest.mark.slow
def test_a_model_asks_a_person_and_goes_on_with_the_answer(cell: Cell, remote: Remote) -> None:
    job_id = submit(cell, remote, "Which colour?", "--agent-may-ask")["job_id"]
    asked = eventually(lambda: cell.lines("checkpoints", "--job", job_id), "it asks")
    assert isinstance(asked, list)
    assert (asked[0]["origin"], asked[0]["question"]) == ("AGENT", "Red or blue?")
    cell.boatyard("approve", job_id, "--comment", "Blue.")
    job = cell.result(job_id)
    assert (job["state"], job["files_changed"]) == ("SUCCEEDED", ["colour.txt"])
    assert remote.show(f"{job['branch']}:colour.txt") == "blue"
