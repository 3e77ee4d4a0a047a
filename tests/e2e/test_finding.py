"""Jobs are found among others, and watched, as users do it."""

import json
import signal
import uuid

from tests.kit.cell import Cell


def test_jobs_are_found_by_label_and_watched(cell: Cell) -> None:
    label = f"run={uuid.uuid4().hex}"
    watching = cell.start("ps", "--watch", "--label", label, "--json")
    try:
        options = ("--kind", "data-processing", "--label", label, "--delay", "3600", "--data", '{"a": 1}', "--detach")
        (late,) = cell.lines("run", "--command", "true", *options, "Later.")
        (done,) = cell.lines("run", "--command", "true", "--label", label, "--detach", "Now.")
        assert cell.result(done["job_id"])["state"] == "SUCCEEDED"
        listed = cell.lines("ps", "--label", label)
        assert [job["job_id"] for job in listed] == [done["job_id"], late["job_id"]]
        assert [job["job_kind"] for job in listed] == ["task", "data-processing"]
        waiting = cell.lines("ps", "--label", label, "--state", "pending")
        assert [(job["job_id"], job["execution_ids"] != []) for job in waiting] == [(late["job_id"], True)]
        assert waiting[0]["not_before_time"] > waiting[0]["create_time"]
        assert cell.lines("ps", "--label", label, "--kind", "review") == []

        cell.boatyard("cancel", late["job_id"])
        assert watching.stdout
        seen: dict[str, list[str]] = {}
        while {states[-1] for states in seen.values()} != {"SUCCEEDED", "CANCELLED"}:
            job = json.loads(watching.stdout.readline())
            seen.setdefault(job["job_id"], []).append(job["state"])
        assert set(seen) == {late["job_id"], done["job_id"]}
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=20)


def test_kinds_are_listed(cell: Cell) -> None:
    kinds = {kind["name"]: kind for kind in cell.lines("kinds")}
    assert {"task", "code-generation", "data-processing", "ticket", "review"} <= set(kinds)
    assert kinds["review"]["required_data"] == ["pull_request_number", "comment_id", "comment_body"]
    refused = cell.boatyard("run", "--kind", "review", "--command", "true", "--json", "x", code=2)
    assert refused == b""
