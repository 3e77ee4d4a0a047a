"""The catalogue and hooks from the command line, and a work item that a worker does, on a whole cell."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.cell import BOATYARD, Cell, eventually, running_cell
from tests.kit.repos import Repo


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    with tempfile.TemporaryDirectory(prefix="boatyard-cli-") as directory, running_cell(Path(directory)) as running:
        yield running


def one(cell: Cell, *arguments: object) -> dict:
    (line,) = cell.lines(*arguments)
    return line


@pytest.mark.slow
def test_a_worker_does_a_work_item(cell: Cell, tmp_path: Path) -> None:
    remote = Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")
    document = tmp_path / "api.md"
    document.write_text("# The API ⚓\n")
    (tmp_path / "system.txt").write_text("Be brief.\n")
    assert cell.boatyard("project", "create", "harbour", "--name", "The harbour") == b"harbour\n"
    project = ("--project", "harbour")
    cell.boatyard("repository", "create", "crane", "--url", remote.path, *project)
    line = 'cat > prompt.txt; echo "$BOATYARD_SYSTEM_PROMPT" > system.txt; echo "$BOATYARD_MODEL $A"'
    cell.boatyard(
        *("template", "create", "fixer", "--command", line, "--system-prompt", f"@{tmp_path}/system.txt"),
        *("--model", "m-1", "--env", "A=1", "--env", "B=x=y", "--verify", "test -e prompt.txt", *project),
    )
    cell.boatyard("worker", "create", "ann", "--template", "fixer", "--name", "Ann", *project)
    cell.boatyard(
        *("item", "create", "ticket-7", "--title", "Mend it", "--note", "first", "--note", "second"),
        *("--document", document, "--repository", "crane", "--env", "A=3", *project),
    )
    cell.boatyard("template", "update", "fixer", "--model", "m-2", "--clear", "env", "--timeout", 60)
    shown = one(cell, "template", "show", "fixer")
    assert shown["kind"] == "template"
    assert (shown["agent"]["model"], shown["agent"]["environment"], shown["agent"]["timeout"]) == ("m-2", {}, 60.0)
    assert (shown["agent"]["system_prompt"], shown["agent"]["network"]) == ("Be brief.", None)

    result = cell.lines("run", "--worker", "ann", "--item", "ticket-7", "Be quick.")[-1]
    assert (result["state"], result["branch"], result["tests_passed"]) == ("SUCCEEDED", "ticket-ticket-7", True)
    prompt = remote.files("ticket-ticket-7")["prompt.txt"]
    assert all(words in prompt for words in ("# Mend it", "second", "### api.md", "# The API ⚓", "Be quick."))
    assert cell.output(result["execution_id"]).split() == [b"m-2", b"3"], "the item's settings hold over its worker's"
    overridden = cell.lines(
        *("run", "--worker", "ann", "--item", "ticket-7", "--env", "A=2", "--model", "m-3", "--no-push"),
        *("--priority", 3, "--label", "a=b", "--max-attempts", 1, "Again."),
    )[-1]
    assert cell.output(overridden["execution_id"]).split() == [b"m-3", b"2"]
    job = one(cell, "show", overridden["job_id"])
    assert (job["project_id"], job["worker_id"], job["priority"]) == ("harbour", "ann", 3)
    assert overridden["tests_passed"], "what was not overridden is the template's"

    assert one(cell, "item", "list", *project)["state"] == "REVIEW"
    assert one(cell, "item", "move", "ticket-7", "done")["state"] == "DONE"
    assert b"ticket-7" in cell.boatyard("item", "list")
    assert b"Mend it" in cell.boatyard("item", "show", "ticket-7")

    cell.boatyard("template", "delete", "fixer", code=2)
    for kind, name in (("item", "ticket-7"), ("worker", "ann"), ("template", "fixer"), ("repository", "crane")):
        cell.boatyard(kind, "delete", name)
    cell.boatyard("item", "show", "ticket-7", code=2)
    cell.boatyard("project", "delete", "harbour")  # only an empty one can be deleted
    assert [project["project_id"] for project in cell.lines("project", "list")] == ["default"]


@pytest.mark.slow
def test_a_job_is_of_the_project_of_what_it_names(cell: Cell, tmp_path: Path) -> None:
    remote = Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")
    of_quay = ("--project", "quay")
    cell.boatyard("project", "create", "quay")
    cell.boatyard("repository", "create", "jetty", "--url", remote.path, *of_quay)
    cell.boatyard("template", "create", "sweeper", "--command", "echo swept > swept.txt; exit 1", *of_quay)
    cell.boatyard("worker", "create", "bob", "--template", "sweeper", *of_quay)
    failed = cell.lines("run", "--template", "sweeper", "--repository", "jetty", "Sweep.", code=1)[-1]
    assert (failed["reason"], failed["files_changed"]) == ("AGENT_FAILED", ["swept.txt"])
    snapshot_id = one(cell, "snapshots", "--repository", "jetty")["snapshot_id"]
    cell.boatyard("snapshots", "--delete", "nope", code=2)
    cell.boatyard("workspaces", "--delete", "nope", code=2)
    cell.boatyard("secret", "delete", "NOPE", *of_quay, code=2)

    line = ("--command", "true")
    for named in (
        ("--worker", "bob"),
        ("--template", "sweeper", "--repo", remote.path),
        ("--repository", "jetty", *line),
        ("--from-snapshot", snapshot_id, *line),
    ):
        cell.boatyard("run", *named, "--delay", 1000, "--detach", "Sweep.")
    jobs = cell.lines("ps", *of_quay)
    assert sorted(job["repository_id"] or "none" for job in jobs) == [*["jetty"] * 4, "none"]
    cell.boatyard("run", "--repository", "jetty", "--repo", remote.path, *line, "Sweep.", code=2)


@pytest.mark.slow
def test_a_floor_is_cleared_by_its_name_or_by_nothing(cell: Cell) -> None:
    """A job's own check is not: a blank one, as of a variable that is not set, would say that all is well."""
    (bare,) = cell.lines("project", "create", "strict")
    floor = (
        "--floor-verify",
        "make",
        "--floor-timeout",
        5,
        "--floor-host",
        "example.com",
        "--floor-sandbox",
        "container",
    )
    (bound,) = cell.lines("project", "update", "strict", *floor)
    assert bound["floor"]["verify_command"] == "make"
    emptied = [text for option in floor[::2] for text in (option, "")]
    assert cell.lines("project", "update", "strict", *emptied) == [bare]
    cell.boatyard("project", "update", "strict", *floor)
    names = [text for option in floor[::2] for text in ("--clear", str(option).removeprefix("--"))]
    assert cell.lines("project", "update", "strict", *names) == [bare]
    cell.boatyard("project", "update", "strict", "--floor-verify", " ", code=2)
    cell.boatyard("project", "update", "strict", "--floor-host", "", "--floor-host", "example.com", code=2)
    cell.boatyard("project", "create", "lax", "--floor-verify", "", code=2)
    cell.boatyard("worker", "create", "ann", "--command", "true")
    cell.boatyard("worker", "update", "ann", "--verify", "", code=2)
    cell.boatyard("worker", "delete", "ann")
    cell.boatyard("project", "delete", "strict")


@pytest.mark.slow
def test_hooks(cell: Cell) -> None:
    command = cell.boatyard("hook", "create", "--event", "pre", "--command", "cat; exit 1", "--order", -1).strip()
    hook_id, secret = cell.boatyard(
        *("hook", "create", "--event", "error", "--webhook", "https://example.com/hook", "--timeout", 1.5)
    ).split()
    assert secret.startswith(b"whsec_")
    listed = cell.lines("hook", "list")
    assert [hook["hook_id"].encode() for hook in listed] == [command, hook_id]
    assert [(hook["event"], hook["failure_policy"], hook["timeout_s"]) for hook in listed] == [
        ("PRE", "FAIL", 30.0),
        ("ERROR", "IGNORE", 1.5),
    ]
    assert secret not in json.dumps(listed).encode() + cell.boatyard("hook", "list")
    cell.environment["BOATYARD_PROJECT"] = "default"  # which --all-projects goes before
    guard = cell.boatyard(
        *("hook", "create", "--event", "before", "--stage", "push", "--command", "true"),
        *("--kind", "task", "--all-projects"),
    )
    del cell.environment["BOATYARD_PROJECT"]
    (made,) = cell.lines("hook", "show", guard.decode().strip())
    assert (made["event"], made["stage"], made["all_projects"], made["kinds"]) == ("BEFORE", "push", True, ["task"])
    cell.boatyard("hook", "disable", made["hook_id"])
    (changed,) = cell.lines("hook", "update", made["hook_id"], "--order", -3, "--clear", "kind")
    assert changed == made | {"enabled": False, "order": -3, "kinds": [], "secret": None}
    assert b"before push (disabled)" in cell.boatyard("hook", "list")
    assert cell.boatyard("hook", "enable", made["hook_id"]) == guard
    assert b"exited with code 0" in cell.boatyard("hook", "test", made["hook_id"])
    (tried,) = cell.lines("hook", "test", command.decode(), code=1)
    assert (tried["outcome"], tried["status"]) == ("VETOED", "exited with code 1")
    assert b"project_id" not in cell.boatyard("hook", "show", made["hook_id"])
    for each in (command, hook_id, guard.strip()):
        cell.boatyard("hook", "delete", each.decode())
    assert cell.lines("hook", "list") == []


@pytest.mark.slow
def test_calls_of_hooks(cell: Cell) -> None:
    hook = cell.boatyard("hook", "create", "--event", "pre", "--command", "echo go on; exit 3").decode().strip()
    result = cell.lines("run", "--command", "true", "Wait.", code=1)[-1]
    (call,) = cell.lines("hook", "calls", "--hook", hook, "--state", "vetoed", "-n", 1)
    assert (call["job_id"], call["event"], call["answer"]) == (result["job_id"], "PRE", "go on")
    assert b"exited with code 3: go on" in cell.boatyard("hook", "calls", "--job", result["job_id"])
    cell.boatyard("hook", "delete", hook)


@pytest.mark.parametrize(
    "arguments",
    [
        ("item", "update", "x"),
        ("item", "create"),
        ("item", "create", "--title", "x", "--document", "/nowhere"),
        ("worker", "create", "--env", "A"),
        ("worker", "create", "--timeout", "soon"),
        ("worker", "create", "--network", "wide"),
        ("template", "show", "nobody"),
        ("hook", "create", "--event", "pre"),
        ("hook", "create", "--event", "pre", "--command", "true", "--webhook", "https://example.com"),
        ("hook", "create", "--event", "pre", "--webhook", "http://127.0.0.1/"),
        ("hook", "create", "--event", "error", "--command", "true", "--on-failure", "fail"),
        ("hook", "create", "--event", "before", "--stage", "nowhere", "--command", "true"),
        ("hook", "update", "nobody", "--order", "1"),
        ("hook", "update", "nobody"),
        ("hook", "delete", "nobody"),
        ("run", "--worker", "nobody", "x"),
        ("run", "--item", "nothing", "--command", "true", "x"),
        ("run", "--template", "nothing", "x"),
        ("run", "--command", "true", "--max-turns", "-1", "x"),
        ("run", "--command", "true", "--ref", "main", "--from-snapshot", "snap-1", "x"),
    ],
    ids=" ".join,
)
def test_wrong_input(cell: Cell, arguments: tuple[str, ...]) -> None:
    assert cell.boatyard(*arguments, code=2) == b""


@pytest.mark.slow
def test_a_repository_that_was_deleted_is_made_anew(cell: Cell, tmp_path: Path) -> None:
    remote = Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")
    cell.run(remote.path, "true")
    (repository,) = [each for each in cell.lines("repository", "list") if each["url"] == str(remote.path)]
    cell.boatyard("repository", "delete", repository["repository_id"])
    assert cell.run(remote.path, "true")["state"] == "SUCCEEDED"


@pytest.mark.slow
def test_a_projects_token_runs_jobs_in_its_project(cell: Cell, tmp_path: Path) -> None:
    remote = Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")
    for project in ("alpha", "beta"):
        cell.boatyard("project", "create", project)
        cell.boatyard("repository", "create", "--url", remote.path, "--project", project)

    def secret(*projects: str, role: str = "operator") -> str:
        named = [argument for project in projects for argument in ("--project", project)]
        return cell.boatyard("token", "create", "--role", role, *named).decode().strip()

    def as_holder(token: str, *arguments: object, code: int = 0, **environment: str) -> str:
        settings = cell.environment | {"BOATYARD_TOKEN": token} | environment
        result = subprocess.run(
            [BOATYARD, *map(str, arguments)], env=settings, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == code, (arguments, result)
        return result.stdout if code == 0 else result.stderr

    expected: dict[str, str] = {}

    def runs_in(project: str, token: str, *arguments: object, **environment: str) -> None:
        line = as_holder(token, "run", *arguments, "--detach", "--json", "Do it.", **environment)
        expected[json.loads(line)["job_id"]] = project

    on_remote = ("--repo", remote.path, "--command", "date > now.txt")
    alpha, both = secret("alpha"), secret("alpha", "beta")
    runs_in("alpha", alpha, *on_remote)  # the repository is found
    runs_in("alpha", alpha, *on_remote, "--retention", "keep", "--no-push")
    kept = list(expected)[-1]
    shown = ("workspaces", "--project", "alpha", "--json")
    eventually(lambda: kept in as_holder(alpha, *shown), "the workspace is listed")
    assert kept not in as_holder(secret("beta"), "workspaces", "--json")
    elsewhere = Repo.sample(tmp_path / "elsewhere")
    refused = as_holder(alpha, "run", "--repo", elsewhere.path, "--command", "true", "x", code=4)
    assert "added by a token of all projects" in refused
    runs_in("beta", both, *on_remote, BOATYARD_PROJECT="beta")
    runs_in("alpha", both, *on_remote, "--project", "alpha", BOATYARD_PROJECT="beta")
    assert "--project or BOATYARD_PROJECT names" in as_holder(both, "run", *on_remote, "x", code=4), "it has no default"
    as_holder(alpha, "run", *on_remote, "--project", "beta", "x", code=4)
    job = one(cell, "run", *on_remote, "--detach", "x")
    assert one(cell, "show", job["job_id"])["project_id"] == "default", "the first administrator's token is for all"

    item = as_holder(alpha, "item", "create", "--title", "Mend it").strip()
    runs_in("alpha", both, "--item", item, "--command", "true")
    worker = as_holder(secret("beta", role="admin"), "worker", "create", "--command", "true").strip()
    runs_in("beta", both, "--worker", worker)
    (listed,) = map(json.loads, as_holder(both, "item", "list", "--json").splitlines())
    assert (listed["work_item_id"], listed["project_id"]) == (item, "alpha")
    assert as_holder(both, "item", "list", "--json", BOATYARD_PROJECT="beta") == ""

    jobs = map(json.loads, as_holder(both, "ps", "--json").splitlines())
    assert {job["job_id"]: job["project_id"] for job in jobs} == expected
    assert len(as_holder(both, "ps", "--json", BOATYARD_PROJECT="beta").splitlines()) == 2


def test_a_token_lets_in_to_what_it_is_for_until_it_is_revoked(cell: Cell) -> None:
    secret = cell.boatyard("token", "create", "--role", "viewer", "--name", "eyes", "--days", 1).decode().strip()
    listed = cell.lines("token", "list")[0]
    assert (listed["role"], listed["name"], listed["project_ids"], listed["creator"]) == ("VIEWER", "eyes", [], "admin")
    assert (listed["last_use_time"], "secret" in listed) == (None, False)
    assert secret.encode() not in cell.boatyard("token", "list", "--json")

    def as_viewer(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = cell.environment | {"BOATYARD_TOKEN": secret}
        return subprocess.run(
            [BOATYARD, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    assert as_viewer("ps").returncode == 0
    refused = as_viewer("project", "create", "mine")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "needs a token of role ADMIN, and this one's is VIEWER" in refused.stderr
    assert one(cell, "token", "revoke", listed["token_id"])["revoke_time"] is not None
    assert as_viewer("ps").returncode == 4
    assert listed["token_id"] not in [token["token_id"] for token in cell.lines("token", "list")]
    assert cell.lines("token", "list", "--all")[0]["last_use_time"] is not None

    def recorded() -> list[tuple[str, str]]:
        lines = cell.lines("audit", "--of", listed["token_id"])
        return [(line["method"], line["caller"]) for line in reversed(lines)]

    eventually(lambda: len(recorded()) == 2, "both calls are recorded")
    assert recorded() == [("TokenService/CreateToken", "admin"), ("TokenService/RevokeToken", "admin")]
    refusals = cell.lines("audit", "--refused", "--caller", "eyes")
    assert [(line["method"], line["reason"]) for line in refusals] == [
        ("CatalogService/CreateProject", "ROLE_REQUIRED")
    ]
    assert b"CatalogService/CreateProject" in cell.boatyard("audit")


@pytest.mark.slow
def test_what_a_job_did_not_leave_or_ask_is_said(cell: Cell, tmp_path: Path) -> None:
    remote = Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")
    job_id = cell.run(remote.path, "exit 1", code=1)["job_id"]
    listed = cell.boatyard("snapshots").decode().splitlines()
    assert [line.endswith("; nothing had changed") for line in listed if job_id in line] == [True]
    for arguments, words in (
        (["retry", job_id, "--from-snapshot"], "left nothing to continue from: nothing had changed"),
        (["approve", job_id], "no job of that id has asked anything; `boatyard checkpoints` lists what waits"),
        (["cells", "forget", "nowhere"], "cell 'nowhere' does not exist"),
    ):
        refused = subprocess.run(
            [BOATYARD, *arguments], env=cell.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
    coordinator = subprocess.run(
        [BOATYARD, "token", "create", "--role", "coordinator"],
        env=cell.environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert " of " not in coordinator.stderr
