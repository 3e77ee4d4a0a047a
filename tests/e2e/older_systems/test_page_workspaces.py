"""Rows of docs/from-older-systems.md: statuses, workspaces and git."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.kit.older_systems import House, Rows, data_of

pytestmark = pytest.mark.slow

statuses = Rows("")
rows = Rows("Workspaces and git")


@pytest.mark.parametrize("row", statuses.of_page)
def test_row_of_statuses(house: House, row: str) -> None:
    statuses.run(row, house)


@pytest.mark.parametrize("row", rows.of_page)
def test_row(house: House, row: str) -> None:
    rows.run(row, house)


@statuses.row("200, 201, 204")
def ok(house: House) -> None:
    assert house.call("JobService.ListJobs", filter={"kinds": ["nothing-of-this-kind"]}).get("jobs", []) == []


@statuses.row("400")
def malformed(house: House) -> None:
    refused = house.refused("AgentRuntimeService.Execute", timeout="-1s")
    assert (refused.code, refused.reason) == ("invalid_argument", "INVALID_FIELDS")
    assert all(field in refused.message for field in ("worker_id", "work_item_id", "prompt"))


@statuses.row("401")
def nobody(house: House) -> None:
    refused = house.refused("JobService.ListJobs", token="")
    assert (refused.code, refused.reason) == ("unauthenticated", "TOKEN_REQUIRED")


@statuses.row("403")
def not_allowed(house: House) -> None:
    (viewer,) = house.cli("token", "create", "--role", "viewer", "--project", "default")
    refused = house.refused("JobService.CancelJob", token=viewer["secret"], job_id="job-x")
    assert (refused.code, refused.reason) == ("permission_denied", "ROLE_REQUIRED")
    refused = house.refused("JobService.ListJobs", token=viewer["secret"], filter={"project_id": "others"})
    assert (refused.code, refused.reason) == ("permission_denied", "PROJECT_NOT_ALLOWED")


@statuses.row("404")
def unknown(house: House) -> None:
    for rpc, field in (("GetExecution", "execution_id"), ("GetWorkspace", "workspace_id")):
        refused = house.refused(f"AgentRuntimeService.{rpc}", **{field: "ws-never"})
        assert (refused.code, refused.reason) == ("not_found", f"{field.upper().removesuffix('_ID')}_NOT_FOUND")


@statuses.row("409")
def wrong_state(house: House) -> None:
    job = house.run("true")
    refused = house.refused("JobService.CancelJob", job_id=job["job_id"])
    assert (refused.code, refused.reason) == ("failed_precondition", "JOB_STATE")
    assert refused.metadata["state"] == "SUCCEEDED"
    assert "PENDING" in refused.metadata["allowed_states"]


@statuses.row("500")
def own_fault(house: House) -> None:
    """A row that no version of ours has written."""
    (template,) = house.cli("template", "create", "--command", "true")
    template_id = template["template_id"]
    with contextlib.closing(sqlite3.connect(house.cell.home / "gateway" / "gateway.db")) as database, database:
        database.execute("UPDATE templates SET agent = '[1]' WHERE template_id = ?", (template_id,))
    try:
        refused = house.refused("CatalogService.GetTemplate", template_id=template_id)
    finally:
        house.call("CatalogService.DeleteTemplate", template_id=template_id)
    assert (refused.code, refused.reason) == ("internal", "INTERNAL")
    log = (house.cell.home / "logs" / "gateway.log").read_text()
    assert any("GetTemplate" in line and "error" in line for line in log.splitlines() if refused.request_id in line)


def workspace_of(house: House, job: dict[str, Any]) -> dict[str, Any]:
    """Return the workspace of a job."""
    asked = house.call("AgentRuntimeService.GetWorkspace", workspace_id=job["workspace_id"])
    return dict(asked["workspace"])


def left_by(house: House) -> str:
    """Return the id of a workspace of a row's own, which a failed job has left."""
    return str(house.run("echo new > new.txt; exit 3")["workspace_id"])


def ids(workspaces: list[dict[str, Any]]) -> list[str]:
    return [workspace["workspace_id"] for workspace in workspaces]


def list_workspaces(house: House, **filters: object) -> list[str]:
    return ids(house.call("AgentRuntimeService.ListWorkspaces", **filters).get("workspaces", []))


@rows.row("`GET /api/agent-runtime/workspaces`, `listActiveWorkspaces()`")
def active_ones(house: House) -> None:
    job_id = house.submit("sleep 60")
    running = house.until_at(job_id, "agent")["workspace_id"]
    assert list_workspaces(house, states=["STATE_ACTIVE"]) == [running]
    assert {running, house.left["workspace_id"]} <= set(ids(house.cli("workspaces")))
    house.cli("cancel", job_id)
    house.ended(job_id)


@rows.row("`findByWorkerId`, `findByStatus`, and by work item")
def filters(house: House) -> None:
    spec = house.left["spec"]
    for field, flag, value in (
        ("worker_id", "--worker", spec["worker_id"]),
        ("work_item_id", "--item", spec["work_item_id"]),
        ("job_id", "--job", house.left["job_id"]),
    ):
        found = list_workspaces(house, **{field: value})
        assert found == ids(house.cli("workspaces", flag, value)) == [house.left["workspace_id"]]
    assert house.left["workspace_id"] in list_workspaces(house, states=["STATE_ERROR"], project_id="default")
    assert list_workspaces(house, states=["STATE_CLEANING"]) == []


@rows.row("`getWorkspace(id)`, `findById`")
def one_workspace(house: House) -> None:
    assert workspace_of(house, house.left)["workspace_id"] == house.left["workspace_id"]
    assert house.refused("AgentRuntimeService.GetWorkspace", workspace_id="ws-never").reason == "WORKSPACE_NOT_FOUND"


@rows.row("`getWorkspacePath(id)`, field `path`")
def path_of_a_workspace(house: House) -> None:
    workspace = workspace_of(house, house.left)
    assert (Path(workspace["path"]) / "new.txt").read_text() == "new\n"
    (viewer,) = house.cli("token", "create", "--role", "viewer")
    asked = {"workspace_id": workspace["workspace_id"], "token": viewer["secret"]}
    assert "path" not in house.call("AgentRuntimeService.GetWorkspace", **asked)["workspace"]


@rows.row("`DELETE /api/agent-runtime/workspaces/:id`, `cleanupWorkspace(id)`")
def deleted(house: House) -> None:
    first, second = left_by(house), left_by(house)
    assert house.call("AgentRuntimeService.DeleteWorkspace", workspace_id=first) == {}
    house.cli("workspaces", "--delete", second)
    assert not {first, second} & set(list_workspaces(house))
    assert house.call("AgentRuntimeService.DeleteWorkspace", workspace_id=first) == {}
    refused = house.refused("AgentRuntimeService.DeleteWorkspace", workspace_id="ws-never")
    assert (refused.code, refused.reason) == ("not_found", "WORKSPACE_NOT_FOUND")


@rows.row("`cleanupStaleWorkspaces(maxAgeMs)`")
def swept(house: House) -> None:
    (project,) = house.cli("project", "create")
    job = house.run("exit 3", project_id=project["project_id"], repository_id="")
    of_project = {"project_id": project["project_id"]}
    assert house.call("AgentRuntimeService.SweepWorkspaces", max_age="3600s", **of_project) == {}
    assert house.cli("workspaces", "--sweep", 1) == []
    removed = house.call("AgentRuntimeService.SweepWorkspaces", max_age="0s", **of_project)
    assert removed["workspace_ids"] == [job["workspace_id"]]
    assert list_workspaces(house, **of_project) == []


@rows.row("`workspaceBaseDir`")
def where_workspaces_are(house: House) -> None:
    assert Path(workspace_of(house, house.left)["path"]).is_relative_to(house.cell.home / "workspace")


@rows.row("`id`, `workerId`, `workItemId`, `repositoryId`, `branchName`")
def fields_of_a_workspace(house: House) -> None:
    workspace, spec = workspace_of(house, house.left), house.left["spec"]
    labels = workspace["labels"]
    assert workspace["workspace_id"] == house.left["workspace_id"]
    assert [labels[name] for name in ("worker_id", "work_item_id")] == [spec["worker_id"], spec["work_item_id"]]
    assert labels["repository_id"] == house.repository_id
    assert labels["branch"] == f"ticket-{spec['work_item_id']}"


def cloned(house: House, clone_id: str, **more: object) -> dict[str, Any]:
    """Clone the remote as a plain clone; return {"path", "commit_id"}."""
    remote = {"repository_id": house.repository_id, "url": str(house.remote.path)}
    *_, last = house.calls("GitService.CloneRepository", clone_id=clone_id, remote=remote, **more)
    return dict(last["clone"])


@rows.row("`cloneRepository({url, path, token, branch})`, with a depth of 1")
def plain_clone(house: House) -> None:
    clone = cloned(house, "moved-clone", branch="main", depth=1)
    assert clone["commit_id"] == house.remote.head("main")
    assert (Path(clone["path"]) / "README").read_text() == "a repository\n"
    assert house.call("GitService.GetStatus", tree={"layout": {"path": clone["path"]}})["is_clean"] is True
    (listed,) = house.call("GitService.ListClones")["clones"]
    assert (listed["clone_id"], listed["path"], int(listed["bytes"]) > 0) == ("moved-clone", clone["path"], True)
    assert house.call("GitService.DeleteClone", clone_id="moved-clone") == {}
    assert house.call("GitService.ListClones").get("clones", []) == []


def tree_of(clone: dict[str, Any]) -> dict[str, Any]:
    return {"layout": {"path": clone["path"]}}


@rows.row("`getDiff(repoPath)`")
def diff_of_a_tree(house: House) -> None:
    clone = cloned(house, "moved-diff")
    (Path(clone["path"]) / "new.txt").write_text("new\n")
    parts = house.calls("GitService.GetDiff", tree=tree_of(clone))
    assert b"+new" in data_of(parts)
    house.call("GitService.DeleteClone", clone_id="moved-diff")


SIGNATURE = {"name": "Ada", "email": "ada@example.com", "time": "2026-01-02T03:04:05Z"}


@rows.row(
    "`createBranch`, `getCurrentBranch`, `stageAllChanges`, `commit`, `getStatus`",
    "`push(repoPath, branchName, token?)`",
)
def git_of_a_clone(house: House) -> None:
    clone = cloned(house, "moved-git")
    tree = tree_of(clone)
    made = house.call("GitService.CreateBranch", tree=tree, branch="by-rpc", commit_id=clone["commit_id"])
    assert made["commit_id"] == clone["commit_id"]
    assert house.call("GitService.GetCurrentBranch", tree=tree)["branch"] == "by-rpc"
    (Path(clone["path"]) / "new.txt").write_text("new\n")
    (entry,) = house.call("GitService.GetStatus", tree=tree)["entries"]
    assert (entry["path"], entry["worktree"]) == ("new.txt", "?")
    assert house.call("GitService.StageAll", tree=tree)["staged_files"] == 1
    commit = house.call("GitService.Commit", tree=tree, message="By RPC", signature=SIGNATURE)["commit_id"]
    remote = {"repository_id": house.repository_id, "url": str(house.remote.path)}
    house.calls("GitService.Push", remote=remote, tree=tree, commit_id=commit, branch="by-rpc")
    assert house.remote.git("log", "-1", "--format=%an %s", "by-rpc") == "Ada By RPC"
    house.remote.git("branch", "-D", "by-rpc")
    house.call("GitService.DeleteClone", clone_id="moved-git")


@rows.row("the same for a workspace, from elsewhere")
def git_of_a_workspace(house: House) -> None:
    workspace_id = left_by(house)
    of_it = {"workspace_id": workspace_id}
    (entry,) = house.call("AgentRuntimeService.GetWorkspaceStatus", **of_it)["entries"]
    assert (entry["path"], entry["worktree"]) == ("new.txt", "?")
    assert b"+new" in data_of(house.calls("AgentRuntimeService.ReadWorkspaceDiff", **of_it))
    assert b"+new" in house.cell.boatyard("diff", workspace_id)
    house.call("AgentRuntimeService.BranchWorkspace", **of_it, branch="by-hand")
    commit = house.call("AgentRuntimeService.CommitWorkspace", **of_it, message="By hand")["commit_id"]
    pushed = house.call("AgentRuntimeService.PushWorkspace", **of_it, branch="by-hand")["job"]
    assert house.ended(pushed["job_id"])["output"]["pushed"] is True
    assert house.remote.head("by-hand") == commit
    (pushed, *_) = house.cli("push", left_by(house))
    assert house.ended(pushed["job_id"])["output"]["pushed"] is True


@rows.row("409: an agent is in it")
def workspace_held(house: House) -> None:
    job_id = house.submit("sleep 60")
    workspace_id = house.until_at(job_id, "agent")["workspace_id"]
    refused = house.refused("AgentRuntimeService.GetWorkspaceStatus", workspace_id=workspace_id)
    assert (refused.code, refused.reason) == ("failed_precondition", "WORKSPACE_HELD")
    assert (refused.metadata["job_id"], bool(refused.metadata["holder"])) == (job_id, True)
    house.cli("cancel", job_id)
    house.ended(job_id)
    asking = house.submit("echo new > new.txt", policy={"checkpoints": {"before": ["push"]}})
    waiting = house.until(asking, lambda job: job["state"] == "STATE_AWAITING_APPROVAL")
    refused = house.refused("AgentRuntimeService.CommitWorkspace", workspace_id=waiting["workspace_id"], message="x")
    assert (refused.code, refused.reason) == ("failed_precondition", "WORKSPACE_IN_USE")
    assert refused.metadata["job_id"] == asking
    house.cli("cancel", asking)


@rows.row("`status`: active, completed, error, cleaning")
def states_of_workspaces(house: House) -> None:
    kept = house.run("true", policy={"retention": "RETENTION_KEEP"})
    assert workspace_of(house, kept)["state"] == "STATE_COMPLETED"
    assert workspace_of(house, house.left)["state"] == "STATE_ERROR"
    assert {workspace["state"] for workspace in house.cli("workspaces")} >= {"ERROR", "COMPLETED"}


@rows.row("`createdAt`, `completedAt`, `cleanupAt`")
def times_of_a_workspace(house: House) -> None:
    workspace = workspace_of(house, house.left)
    assert workspace["create_time"] < workspace["complete_time"] < workspace["expire_time"]
