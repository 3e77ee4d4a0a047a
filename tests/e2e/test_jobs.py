"""What `boatyard run` promises: the right end, the right reason, and the branch on the remote."""

import json
import uuid
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cell import Cell, eventually
from tests.kit.repos import Repo


def test_a_change_is_verified_and_pushed(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "cat > prompt.txt; echo all done", "--verify", "grep -q 'Do it' prompt.txt")

    assert result["state"] == "SUCCEEDED"
    assert result["branch"] == f"boatyard/{result['job_id']}"
    assert result["files_changed"] == ["prompt.txt"]
    assert (result["tests_run"], result["tests_passed"]) == (True, True)
    assert remote.git("rev-parse", result["branch"]) == result["commit"]
    assert remote.git("rev-parse", f"{result['branch']}^") == remote.head
    assert remote.show(f"{result['branch']}:prompt.txt").strip() == "Do it."
    assert cell.output(result["execution_id"]) == b"all done\n"
    assert b"+Do it." in cell.boatyard("diff", result["execution_id"])


def test_verify_sees_the_taken_commit_and_not_the_workspace(cell: Cell, remote: Remote) -> None:
    result = cell.run(
        remote.path, "echo '*.tmp' > .gitignore; touch a.tmp b.txt", "--verify", "test -e b.txt && ! test -e a.tmp"
    )

    assert result["tests_passed"] is True


@pytest.mark.slow
def test_a_check_that_fails_publishes_nothing(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "touch new.txt", "--verify", "echo broken; exit 3", code=1)

    assert (result["state"], result["reason"], result["tests_passed"]) == ("FAILED", "VERIFY_FAILED", False)
    assert remote.branches() == ["main"]
    assert b"new.txt" in cell.boatyard("diff", result["execution_id"])


AGENTS = {
    "deletes .git": ("rm -rf .git; echo x > new.txt", 1),
    "makes .git anew": ("rm -rf .git; git init -q; git add -A; git commit -qm mine; echo x > new.txt", 1),
    "goes back in history": ("git reset -q --soft HEAD~2; echo x > new.txt", 1),
    "commits by itself": ("echo x > new.txt; git add -A; git commit -qm mine; echo y > more.txt", 2),
}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "commits"), AGENTS.values(), ids=AGENTS)
def test_the_working_tree_is_the_result(cell: Cell, remote: Remote, command: str, commits: int) -> None:
    identity = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; "
    result = cell.run(remote.path, identity + command)

    assert result["state"] == "SUCCEEDED"
    assert remote.show(f"{result['branch']}:new.txt") == "x"
    assert remote.show(f"{result['branch']}:counter.txt") == "2"
    assert remote.git("rev-list", "--count", f"{remote.head}..{result['branch']}") == str(commits)
    assert remote.git("merge-base", remote.head, result["branch"]) == remote.head


def test_nothing_changed_is_a_result(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "echo I looked, and all is well")

    assert (result["state"], result["files_changed"]) == ("SUCCEEDED", [])
    assert remote.branches() == ["main"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "reason"),
    [("echo so far > partial.txt; exit 7", "AGENT_FAILED"), ("no-such-agent --please", "AGENT_NOT_INSTALLED")],
)
def test_an_agent_that_fails(cell: Cell, remote: Remote, command: str, reason: str) -> None:
    result = cell.run(remote.path, command, code=1)

    assert (result["state"], result["reason"]) == ("FAILED", reason)
    assert remote.branches() == ["main"]


@pytest.mark.slow
def test_what_a_failed_agent_did_is_kept(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "echo so far > partial.txt; exit 7", code=1)

    assert result["files_changed"] == ["partial.txt"]
    assert b"+so far" in cell.boatyard("diff", result["execution_id"])


@pytest.mark.slow
def test_a_timeout(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "echo begun; sleep 600", "--timeout", 1, code=1)

    assert (result["state"], result["reason"]) == ("FAILED", "TIMED_OUT")
    assert cell.output(result["execution_id"]) == b"begun\n"


@pytest.mark.slow
def test_a_repository_that_is_not_there(cell: Cell, remote: Remote) -> None:
    url = f"file://{remote.path.parent}/nowhere.git"
    result = cell.run(url, "true", code=1)

    assert (result["state"], result["reason"]) == ("FAILED", "REMOTE_NOT_FOUND")


@pytest.mark.slow
def test_a_path_without_a_repository_leaves_nothing_in_the_catalogue(cell: Cell, remote: Remote) -> None:
    known = cell.lines("repository", "list")
    for typo in ("nowhere.git", "."):
        cell.boatyard("run", "--repo", remote.path.parent / typo, "--command", "true", "Do it.", code=2)
    assert cell.lines("repository", "list") == known


@pytest.mark.slow
def test_a_url_that_leads_nowhere_leaves_nothing_in_the_catalogue(cell: Cell, remote: Remote) -> None:
    known = cell.lines("repository", "list")
    assert cell.run(f"file://{remote.path.parent}/nowhere.git", "true", code=1)["reason"] == "REMOTE_NOT_FOUND"
    cell.boatyard("run", "--repo", remote.path, "--template", "nope", "Do it.", code=2)
    assert cell.lines("repository", "list") == known
    first = cell.run(remote.path, "true")
    assert cell.run(f"file://{remote.path}/", "true")["state"] == "SUCCEEDED"
    listed = [each["repository_id"] for each in cell.lines("repository", "list")]
    known_ids = [each["repository_id"] for each in known]
    assert len(listed) == len(known) + 1, (first, known_ids)


@pytest.mark.slow
def test_what_is_not_committed_is_said_and_taken_along(cell: Cell, remote: Remote) -> None:
    work = Repo.sample(remote.path.parent / "dirty")
    work.write({"README": "changed", "deep/new": "new"})
    assert cell.run(work.path / "deep", "ls deep", "--no-push", code=1)["state"] == "FAILED"
    job = cell.run(work.path / "deep", "cat README; cat deep/new; echo more > more", "--include-dirty")
    assert cell.output(job["execution_id"]) == b"changednew"
    assert work.git("status", "--porcelain") == " M README\n?? deep/"
    assert work.git("for-each-ref", "refs/boatyard") == ""
    assert work.files(job["commit"])["deep/new"] == "new"


@pytest.mark.slow
def test_a_repository_without_a_commit_gets_its_first(cell: Cell, tmp_path: Path) -> None:
    work = Repo.init(tmp_path / "new")
    agent = "test -z \"$(git log 2>/dev/null)\" && echo one > made && echo '*.log' > .gitignore && echo x > kept.log"
    rest = ("--verify", "grep one made", "--artifact", "*.log", "--branch", "begun")
    failed = cell.run(work.path, f"{agent}; exit 1", *rest, code=1)
    assert b"+one" in cell.boatyard("diff", failed["execution_id"])
    cell.boatyard("retry", "--from-snapshot", failed["job_id"])
    assert cell.result(failed["job_id"])["state"] == "FAILED"
    cell.boatyard("push", failed["job_id"])
    assert cell.result(failed["job_id"])["state"] == "SUCCEEDED"
    assert work.git("log", "--format=%p", "begun") == ""
    assert set(work.files("begun")) == {"made", ".gitignore"}
    second = cell.run(work.path, "echo two > made", "--ref", "begun", "--verify", "grep two made")
    assert work.head(f"{second['commit']}^") == work.head("begun")


@pytest.mark.slow
def test_a_push_that_is_refused(cell: Cell, remote: Remote) -> None:
    remote.git("config", "transfer.hideRefs", "refs/heads/boatyard")
    result = cell.run(remote.path, "touch new.txt", code=1)

    assert (result["state"], result["reason"]) == ("FAILED", "PUSH_REJECTED")
    (job,) = cell.lines("show", result["job_id"])
    assert "deny updating a hidden ref" in job["message"]


@pytest.mark.slow
def test_the_same_request_is_the_same_job(cell: Cell, remote: Remote) -> None:
    first = cell.run(remote.path, "touch new.txt", "--request-id", "once")
    second = cell.run(remote.path, "touch new.txt", "--request-id", "once")

    assert second == first
    cell.boatyard("run", "--repo", remote.path, "--command", "true", "--request-id", "once", "Another", code=2)


@pytest.mark.slow
def test_cancel_of_something_finished(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "true")

    cell.boatyard("cancel", result["job_id"], code=2)
    (job,) = cell.lines("show", result["job_id"])
    assert job["state"] == "SUCCEEDED"


@pytest.mark.parametrize("command", [("show", "job-none"), ("cancel", "exec-none"), ("diff", "exec-none")])
def test_an_unknown_id_is_wrong_input(cell: Cell, command: tuple[str, str]) -> None:
    cell.boatyard(*command, code=2)


@pytest.mark.slow
def test_the_workspace_of_a_success_is_gone(cell: Cell, remote: Remote) -> None:
    result = cell.run(remote.path, "touch new.txt", "--verify", "true")

    assert result["job_id"] not in {workspace["job_id"] for workspace in cell.lines("workspaces")}


@pytest.mark.slow
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
        watching.kill()
        watching.communicate()


def test_kinds_are_listed(cell: Cell) -> None:
    kinds = {kind["name"]: kind for kind in cell.lines("kinds")}
    assert {"task", "code-generation", "data-processing", "ticket", "review"} <= set(kinds)
    assert kinds["review"]["required_data"] == ["pull_request_number", "comment_id", "comment_body"]
    refused = cell.boatyard("run", "--kind", "review", "--command", "true", "--json", "x", code=2)
    assert refused == b""


@pytest.mark.slow
def test_files_are_kept_beside_the_result(cell: Cell, remote: Remote, tmp_path: Path) -> None:
    agent = "echo dist > .gitignore; mkdir dist; printf wheel > dist/a.whl"
    result = cell.run(remote.path, agent, "--artifact", "dist/*.whl", "--artifact", "*.log")

    assert [(each["name"], each["bytes"]) for each in result["artifacts"]] == [("dist/a.whl", 5)]
    assert result["omitted_artifacts"] == [{"name": "*.log", "reason": "NO_SUCH_FILE"}]
    assert b"dist/a.whl" in cell.boatyard("artifacts", result["job_id"])
    assert cell.boatyard("artifact", result["job_id"], "dist/a.whl") == b"wheel"
    saved = tmp_path / "saved"
    cell.boatyard("artifact", result["job_id"], "dist/a.whl", "-o", str(saved))
    assert saved.read_bytes() == b"wheel"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".saved")] == []


@pytest.mark.slow
def test_what_was_not_to_be_pushed_is_pushed_when_somebody_says_so(cell: Cell, remote: Remote) -> None:
    job = cell.run(remote.path, "echo later > later.txt", "--no-push", "--approve-before", "push")
    assert (job["state"], remote.branches()) == ("SUCCEEDED", ["main"])
    cell.boatyard("push", job["job_id"], "--branch", "refs/tags/no", code=2)
    cell.boatyard("push", job["job_id"], "--branch", "refs/heads/chosen")
    eventually(lambda: cell.lines("checkpoints"), "it is asked whether it may be pushed")
    cell.boatyard("approve", job["job_id"])
    assert cell.result(job["job_id"])["state"] == "SUCCEEDED"
    assert remote.git("rev-parse", "chosen") == job["commit"]
    cell.boatyard("push", job["job_id"], code=2)
