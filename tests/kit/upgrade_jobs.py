"""Jobs in the states in which an upgrade finds jobs: how they get there, what people do then, how they must end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import Remote
from tests.kit.cell import Cell, eventually
from tests.kit.processes import event_bytes
from tests.kit.replay import bash, write_script

Check = Callable[[Cell, str], object]
USED = {"input": 1000, "output": 100}
MODEL = ("--engine", "anthropic", "--model", "claude-sonnet-5-5")
CHANGES = "echo new > new.txt"
ON_COORDINATOR = ("--kind", "data-processing")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of job. `found` is true once it is in its state; `answer` is what people do after the upgrade."""

    name: str
    arguments: Sequence[object]
    found: Check
    answer: Check = lambda _cell, _job_id: None
    prompt: str = "Do it."
    state: str = "SUCCEEDED"
    copies: int = 1
    attempts: int | None = 1
    """How many executions it has at the end; None for any number."""
    counts: bool = False
    """True when it prints the numbers from 1 on, each in a line."""


def cases(remote: Remote, slow: Remote, gate: Path, *, in_container: bool) -> Iterator[Case]:
    """Yield the jobs of a cell. Most of them wait for the file `gate`; of `slow` only one job runs at a time."""
    until_gate = f"until test -e {gate}; do sleep 0.2; done"
    counting = f"i=0; until test -e {gate}; do i=$((i+1)); echo $i; sleep 0.2; done; {CHANGES}"
    on_remote = ("--repo", remote.path)

    def working(command: str, *arguments: object) -> Sequence[object]:
        return (*on_remote, "--command", command, *arguments)

    # The first of all, so that it is found before its time however long the others take.
    yield Case(name="is delayed", arguments=working(CHANGES, "--delay", "180"), found=is_pending)
    yield Case(name="runs", arguments=working(counting), found=has_printed, copies=4, counts=True)
    yield Case(name="has no repository", arguments=("--command", counting), found=has_printed, counts=True)
    if in_container:
        arguments = working(counting, "--sandbox", "container")
        yield Case(name="runs in a container", arguments=arguments, found=has_printed, counts=True)
    # What only the version before let anybody choose: a job ends as it began, with its check.
    bare = working(counting, "--sandbox", "none", "--verify", "test -e new.txt")
    yield Case(name="runs without a border", arguments=bare, found=has_printed, counts=True)
    yield Case(name="verifies", arguments=working(CHANGES, "--verify", until_gate), found=is_in("verify"), copies=2)
    yield Case(
        name="is approved",
        arguments=working(CHANGES, "--approve-before", "push"),
        found=asks,
        answer=lambda cell, job_id: cell.boatyard("approve", job_id),
    )
    yield Case(
        name="is approved before its start",
        arguments=working(CHANGES, "--approve-before", "start"),
        found=asks,
        answer=lambda cell, job_id: cell.boatyard("approve", job_id),
    )
    yield Case(
        name="is rejected",
        arguments=working(CHANGES, "--approve-before", "push"),
        found=asks,
        answer=lambda cell, job_id: cell.boatyard("reject", job_id, "--reason", "no"),
        state="FAILED",
    )
    yield Case(
        name="is in its second round",
        arguments=working(
            f"echo x >> rounds.txt; test $(wc -l < rounds.txt) = 1 || {until_gate}", "--approve-before", "push"
        ),
        found=second_round,
        answer=approve_when_asked,
        attempts=None,
    )
    yield Case(
        name="is parked for a retry",
        arguments=working(f"test -e {gate} && {CHANGES}", "--retry-on", "AGENT_FAILED", "--max-attempts", "20"),
        found=lambda cell, job_id: len(shown(cell, job_id)["execution_ids"]) > 1,
        attempts=None,
    )
    # That version compared with the snapshot itself: nothing would be pushed, and less be shown than what is pushed.
    half = "test -e half.txt || { echo half > half.txt; exit 3; }"
    from_snapshot = ("--retry-on", "AGENT_FAILED", "--max-attempts", "2", "--retry-from", "snapshot")
    yield Case(
        name="goes on from a snapshot",
        arguments=working(f"{half}; echo goes on; {until_gate}", *from_snapshot),
        found=lambda cell, job_id: len(shown(cell, job_id)["execution_ids"]) > 1 and has_printed(cell, job_id),
        attempts=2,
    )
    yield Case(
        name="went on from a snapshot",
        arguments=working(f"{half}; {CHANGES}", *from_snapshot, "--approve-before", "push"),
        found=asks,
        answer=approve_twice,
        attempts=2,
    )
    yield Case(
        name="holds its repository",
        arguments=("--repo", slow.path, "--command", counting),
        found=has_printed,
        counts=True,
    )
    yield Case(
        name="is queued",
        arguments=("--repo", slow.path, "--command", CHANGES),
        found=is_pending,
        copies=2,
    )
    yield Case(
        name="is at a terminal",
        arguments=working("echo ask; read answer; echo $answer > answer.txt", "--terminal"),
        found=has_printed,
        answer=lambda cell, job_id: cell.boatyard("attach", job_id, stdin=b"hello\r"),
    )
    yield Case(
        name="talks to a model",
        arguments=(*on_remote, *MODEL, "--verify", "test $(cat told.txt | wc -l) = 3"),
        prompt="Count with me",
        found=lambda cell, job_id: kinds(cell, job_id).count("tool_call") > 1,
    )
    yield Case(
        name="asks for a permission",
        arguments=(*on_remote, *MODEL, "--ask-before", "bash"),
        prompt="Ask first",
        found=lambda cell, job_id: "permission_request" in kinds(cell, job_id),
        answer=allow,
    )


def coordinators_cases(remote: Remote, gate: Path) -> Iterator[Case]:
    """Yield the jobs of a coordinator."""
    counting = f"i=0; until test -e {gate}; do i=$((i+1)); echo $i; sleep 0.2; done; {CHANGES}"
    here = ("--repo", remote.path, *ON_COORDINATOR)
    no_questions = ("--approve-before", "none")
    yield Case(
        name="runs on a coordinator",
        arguments=(*here, "--command", counting, *no_questions),
        found=has_printed,
        copies=2,
        counts=True,
    )
    yield Case(
        name="is approved on a coordinator",
        arguments=(*here, "--command", CHANGES, "--approve-before", "push"),
        found=asks,
        answer=lambda cell, job_id: cell.boatyard("approve", job_id),
    )


def scripts(directory: Path, gate: Path) -> list[Path]:
    """Write what the model says."""
    until_gate = f"until test -e {gate}; do sleep 0.2; done"
    counted = [
        {"text": "one", "tools": [bash("echo 1 >> told.txt")], "usage": USED},
        {"text": "two", "tools": [bash(f"{until_gate}; echo 2 >> told.txt", timeout_seconds=600)], "usage": USED},
        {"text": "three", "tools": [bash("echo 3 >> told.txt")], "usage": USED},
        {"text": "done", "usage": USED},
    ]
    asked = [
        {"text": "May I?", "tools": [bash("echo yes > allowed.txt")], "usage": USED},
        {"text": "done", "usage": USED},
    ]
    return [
        write_script(directory / "count.toml", counted, prompt="Count with me"),
        write_script(directory / "ask.toml", asked, prompt="Ask first"),
    ]


def shown(cell: Cell, job_id: str) -> dict:
    """Return a job as `show --json` prints it."""
    (job,) = cell.lines("show", job_id)
    return job


def printed(cell: Cell, execution_id: str) -> list[str]:
    """Return the lines that an execution printed. Fails when its events have gaps or come twice."""
    events = cell.lines("logs", execution_id)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    output = [event for event in events if event["kind"] == "output" and event["stream"] == "stdout"]
    return b"".join(map(event_bytes, output)).decode().splitlines()


def kinds(cell: Cell, job_id: str) -> list[str]:
    """Return the kinds of a job's events."""
    return [event["kind"] for event in cell.lines("logs", job_id, code=None)]


def has_printed(cell: Cell, job_id: str) -> bool:
    return "output" in kinds(cell, job_id)


def asks(cell: Cell, job_id: str) -> bool:
    return shown(cell, job_id)["state"] == "AWAITING_APPROVAL"


def is_pending(cell: Cell, job_id: str) -> bool:
    return shown(cell, job_id)["state"] == "PENDING"


def is_in(stage: str) -> Check:
    """Return a check that a job is in a stage."""

    def check(cell: Cell, job_id: str) -> bool:
        records = shown(cell, job_id)["timeline"]
        return any(record["name"].startswith(stage) and record["state"] == "RUNNING" for record in records)

    return check


def second_round(cell: Cell, job_id: str) -> bool:
    """Ask for changes once; true when the second round runs."""
    if asks(cell, job_id):
        cell.boatyard("request-changes", job_id, "Do more.")
    return shown(cell, job_id)["checkpoints"] != [] and shown(cell, job_id)["state"] == "RUNNING"


def approve_when_asked(cell: Cell, job_id: str) -> None:
    eventually(lambda: asks(cell, job_id), f"{job_id} asks again", timeout=120)
    cell.boatyard("approve", job_id)


def approve_twice(cell: Cell, job_id: str) -> None:
    """Approve what was shown, and then the whole of it."""
    cell.boatyard("approve", job_id)
    eventually(lambda: asks(cell, job_id), f"{job_id} asks again", timeout=120)
    assert shown(cell, job_id)["files_changed"] == ["half.txt", "new.txt"]
    cell.boatyard("approve", job_id)


def allow(cell: Cell, job_id: str) -> None:
    (request,) = [event for event in cell.lines("logs", job_id) if event["kind"] == "permission_request"]
    cell.boatyard("allow", job_id, request["permission_id"])
