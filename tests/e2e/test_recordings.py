"""`run --record`, `record get` and `run --replay`: what models said to one cell makes the same commit on another."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cell import BOATYARD, Cell, running_cell
from tests.kit.replay import bash, replaying, write_script

KEY = "sk-ant-end-to-end-4712"
USED = {"input": 1000, "output": 100}
REPLIES = [
    {"text": "I count.", "tools": [bash("date; echo 3 > counter.txt; git log --oneline | head -1")], "usage": USED},
    {"text": "I look.", "tools": [bash("mktemp; cat counter.txt; echo $SECRET_WORD")], "usage": USED},
    {"text": "I counted on.", "usage": USED},
]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def offline(directory: Path) -> Iterator[Cell]:
    """A cell without any key or provider."""
    with running_cell(directory / "offline") as running:
        yield running


@dataclass
class Recorded:
    """A job that was recorded, its remote and its recording. Its agent's secret has another value by now."""

    result: dict
    remote: Remote
    tape: Path
    secret: Path

    def again(self, *arguments: object) -> list[object]:
        """Return the arguments of a job that replays it."""
        return ["run", "--repo", self.remote.path, *agent(self.secret), "--replay", self.tape, *arguments]


def agent(secret: Path) -> tuple[str, ...]:
    return ("--engine", "anthropic", "--model", "claude-sonnet-5-5", "--secret", f"SECRET_WORD=@{secret}")


@pytest.fixture(scope="module")
def recorded(directory: Path) -> Recorded:
    word, tape = directory / "word", directory / "tape.jsonl"
    word.write_text("a-secret-word-4712\n")
    directory.joinpath("remote").mkdir()
    remote = Remote(directory / "remote")
    with (
        replaying(directory, write_script(directory / "script.toml", REPLIES)) as model,
        running_cell(directory / "online", ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=model.url) as online,
    ):
        result = online.lines("run", "--repo", remote.path, *agent(word), "--record", "Count on.")[-1]
        (saved,) = online.lines("record", "get", result["job_id"], "-o", tape)
        shown = online.boatyard("record", "get", result["execution_id"])
    assert result["state"] == "SUCCEEDED"
    assert saved == {"kind": "recording", "id": result["job_id"], "path": str(tape), "bytes": tape.stat().st_size}
    assert shown == tape.read_bytes()
    word.write_text("another-word-0815\n")
    return Recorded(result, remote, tape, word)


@pytest.mark.slow
def test_a_recording_makes_the_same_commit_on_a_cell_without_a_key(offline: Cell, recorded: Recorded) -> None:
    text, first = recorded.tape.read_text(), recorded.result
    assert json.loads(text.partition("\n")[0])["recording"] == 1
    assert "[redacted:SECRET_WORD]" in text
    assert not [secret for secret in ("a-secret-word-4712", KEY) if secret in text]
    again = offline.lines(*recorded.again("Count on."))[-1]
    assert (again["state"], again["reason"]) == ("SUCCEEDED", None)
    assert (again["tokens_used"], again["cost_usd"]) == (first["tokens_used"], 0)
    trees = {recorded.remote.git("rev-parse", f"{result['commit']}^{{tree}}") for result in (first, again)}
    assert len(trees) == 1


@pytest.mark.slow
def test_another_request_is_refused_and_by_order_it_is_not(offline: Cell, recorded: Recorded) -> None:
    strict = offline.lines(*recorded.again("Count up."), code=1)[-1]
    assert strict["reason"] == "REPLAY_MISMATCH"
    assert "'Count on.' in the recording, and 'Count up.' here" in json.dumps(offline.lines("show", strict["job_id"]))
    ordered = offline.lines(*recorded.again("--replay-by", "order", "--record", "Count up."))[-1]
    assert ordered["state"] == "SUCCEEDED"
    assert b'"provider": "(replay)"' in offline.boatyard("record", "get", ordered["job_id"])


@pytest.mark.slow
def test_what_is_no_recording_and_what_has_none_is_told(offline: Cell, remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("These are notes.\n")
    agent = ("run", "--repo", remote.path, "--command", "true")
    assert "is no recording" in complaint(offline, 2, *agent, "--replay", tmp_path / "notes", "Go.")
    job = offline.lines(*agent, "Go.")[-1]["job_id"]
    assert "the job was not run with --record" in complaint(offline, 2, "record", "get", job, "-o", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def complaint(cell: Cell, code: int, *arguments: object) -> str:
    """Run a command that is refused; return what it says."""
    done = subprocess.run(
        [BOATYARD, *map(str, arguments)], env=cell.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done
    return done.stderr


@pytest.mark.slow
def test_who_may_read_events_may_read_recordings_and_nobody_else(offline: Cell, remote: Remote, tmp_path: Path) -> None:
    tape = tmp_path / "tape.jsonl"
    tape.write_text('{"recording": 1, "began": 0}\n')
    run = ("run", "--repo", remote.path, "--command", "true", "--replay", tape, "--record", "Go.")
    execution = offline.lines(*run)[-1]["execution_id"]
    offline.boatyard("project", "create", "elsewhere")
    for arguments, code in ((("--role", "viewer"), 0), (("--role", "viewer", "--project", "elsewhere"), 4)):
        (made,) = offline.lines("token", "create", *arguments)
        reader = Cell(offline.home)
        reader.environment |= {"BOATYARD_TOKEN": made["secret"]}
        reader.boatyard("record", "get", execution, code=code)
