"""What people are asked, and what becomes of their answers, by the command line of a whole cell."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cell import Cell, eventually, running_cell

WAITING = 5
BEFORE_PUSH = ("--approve-before", "push")


def asked(cell: Cell, job_id: str) -> dict[str, Any]:
    """Wait until a job asks somebody; return the question."""
    found = eventually(lambda: cell.lines("checkpoints", "--job", job_id), f"{job_id} asks")
    assert isinstance(found, list)
    return found[0]


def run_until_asked(cell: Cell, remote: Remote, *arguments: object) -> str:
    """Run a job until it waits for a person; return its id."""
    lines = cell.lines(
        *("run", "--repo", remote.path, "--command", "echo new > new.txt", "--no-wait"),
        *(*BEFORE_PUSH, *arguments, "Do it."),
        code=WAITING,
    )
    question, result = lines[-2:]
    assert (question["kind"], question["state"], question["name"]) == ("checkpoint", "PENDING", "push")
    assert (result["kind"], result["state"]) == ("result", "AWAITING_APPROVAL")
    return str(result["job_id"])


@pytest.mark.slow
def test_an_approval_asked_for_before_and_given_after_a_restart_of_everything(scratch: Path, remote: Remote) -> None:
    with running_cell(scratch) as cell:
        job_id = run_until_asked(cell, remote)
        cell.down()
        cell.up()
        question = asked(cell, job_id)
        assert (question["question"], question["takes_changes"]) == ("May the result be pushed?", True)
        (answer,) = cell.lines("approve", job_id, "--comment", "after a night's sleep")
        assert (answer["state"], answer["decided_by"], answer["already_decided"]) == ("APPROVED", "admin", False)
        job = cell.result(job_id)
    assert (job["state"], job["pushed"]) == ("SUCCEEDED", True)
    assert remote.show(f"{job['branch']}:new.txt") == "new"
    (told,) = job["checkpoints"]
    assert (told["comment"], told["decided_from"][:5]) == ("after a night's sleep", "unix:")


@pytest.mark.slow
def test_one_that_nobody_answers(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "true", "--approve-before", "start", "--answer-within", "1", code=1)
    assert (result["state"], result["reason"]) == ("FAILED", "EXPIRED")
    (late,) = cell.lines("approve", result["job_id"], code=1)
    assert (late["state"], late["already_decided"]) == ("EXPIRED", True)


@pytest.mark.slow
def test_a_rejected_one(cell: Cell, remote: Remote) -> None:
    job_id = run_until_asked(cell, remote)
    cell.boatyard("reject", job_id, "--reason", "not today")
    job = cell.result(job_id)
    assert (job["state"], job["reason"], job["message"]) == ("FAILED", "REJECTED", "not today")
    assert f"boatyard/{job_id}" not in remote.branches()
    assert b"+new" in cell.boatyard("diff", job["snapshot_id"])


@pytest.mark.slow
def test_two_answers_at_once(cell: Cell, remote: Remote) -> None:
    job_id = run_until_asked(cell, remote)
    answers = [
        cell.start("reject" if number % 2 else "approve", job_id, "--json", *(("--reason", "no") if number % 2 else ()))
        for number in range(4)
    ]
    ends = [(answer.communicate(timeout=60), answer.returncode) for answer in answers]
    job = cell.result(job_id)
    (question,) = job["checkpoints"]
    approved = question["state"] == "APPROVED"
    assert job["state"] == ("SUCCEEDED" if approved else "FAILED")
    assert [code for _, code in ends] == [0, 1, 0, 1] if approved else [1, 0, 1, 0]
    assert all(f'"{question["state"]}"'.encode() in output for (output, _), _ in ends), "all are told the first answer"
    assert sum(b'"already_decided": false' in output for (output, _), _ in ends) == 1


@pytest.mark.slow
def test_run_shows_that_it_waits_and_goes_on_when_it_is_answered(cell: Cell, remote: Remote) -> None:
    command = 'cat > "told-$BOATYARD_ROUND"; echo "round $BOATYARD_ROUND"'
    with cell.start("run", "--repo", remote.path, "--command", command, *BEFORE_PUSH, "Build it.") as running:
        jobs = eventually(
            lambda: [job for job in cell.lines("ps", "--live") if job["prompt"] == "Build it."], "the job is there"
        )
        assert isinstance(jobs, list)
        job_id = jobs[0]["job_id"]
        asked(cell, job_id)
        cell.boatyard("request-changes", job_id, "Paint it red.")
        eventually(lambda: asked(cell, job_id)["round"] == 2, "it is asked again")
        cell.boatyard("approve", job_id)
        output, told = running.communicate(timeout=60)
    assert running.returncode == 0, told
    assert output == b"round 1\nround 2\n"
    assert b"? May the result be pushed?" in told
    assert f"`boatyard approve {job_id}`".encode() in told
    assert "Paint it red." in remote.show(f"boatyard/{job_id}:told-2")
    shown = cell.boatyard("show", job_id)
    assert b"CHANGES_REQUESTED by admin" in shown
    assert b"APPROVED by admin" in shown


@pytest.mark.slow
def test_answers_to_nothing(cell: Cell, remote: Remote) -> None:
    cell.boatyard("approve", "job-none", code=2)
    job = cell.run(remote.path, "true")
    cell.boatyard("approve", job["job_id"], code=2)
