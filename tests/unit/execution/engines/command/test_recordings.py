"""What real agents wrote to a scripted model, read again; their versions are in decision 69."""

import json
from pathlib import Path

import pytest

from services.execution.engines.command.judging import judged, transcript
from services.execution.engines.command.preset import PresetTask
from services.execution.eventlog import EventKind, EventReader, EventWriter, Stream
from services.execution.model import ModelUse, Reason
from services.execution.presets.presets import Presets
from services.execution.presets.tools import ToolPaths
from services.execution.processes import verdict
from tests.kit.contract import ROOT

RECORDINGS = ROOT / "tests" / "data" / "agents"
ENDS = {
    "claude-fix": (0, None, ""),
    "claude-denied": (0, Reason.AGENT_FAILED, "refused 3 of its tool calls (Bash)"),
    "claude-denied-by-rules": (0, Reason.AGENT_FAILED, "refused 3 of its tool calls (Bash)"),
    "claude-interrupted": (0, Reason.AGENT_FAILED, "interrupted (aborted_tools)"),
    "claude-refused": (1, Reason.MODEL_FAILED, "API Error: 400"),
    "codex-fix": (0, None, ""),
    "codex-refused": (1, Reason.MODEL_FAILED, "by the script"),
    "gemini-fix": (0, None, ""),
    "gemini-refused": (144, Reason.MODEL_FAILED, "by the script"),
    "opencode-fix": (0, None, ""),
    "opencode-refused": (1, Reason.MODEL_FAILED, "by the script"),
    "aider-fix": (0, None, ""),
    "aider-refused": (0, Reason.AGENT_FAILED, "litellm.BadRequestError"),
    "mini-swe-agent-fix": (0, None, ""),
    "mini-swe-agent-failed": (0, Reason.AGENT_FAILED, "RepeatedFormatError"),
}
"""How the program of a recording ended, and what that means."""


def replay(path: Path, agent: str, recording: bytes) -> tuple[list[tuple[EventKind, dict]], object, ModelUse]:
    preset = Presets.load(None, ToolPaths()).by_name[agent]
    codes = {str(code): reason for code, reason in preset.exit_codes.items()}
    task = PresetTask(
        title=preset.title,
        install=preset.install,
        reader=preset.reader,
        done=preset.done,
        failed=preset.failed,
        exit_codes=codes,
    )
    with EventWriter(path) as writer:
        reading = transcript(task, writer)
        reading.output(Stream.STDOUT, recording, 1)
        reading.end()
    with EventReader(path) as log:
        records = []
        while more := log.read():
            records += more
    said = [(each.kind, each.fields()) for each in records if each.kind is not EventKind.OUTPUT]
    return (
        said,
        lambda status: judged(verdict.ended(status), status, task, reading.problem()),
        reading.events.model_use(),
    )


@pytest.mark.parametrize("recording", ENDS)
def test_an_end_means_what_the_agent_says(recording: str, tmp_path: Path) -> None:
    status, reason, words = ENDS[recording]
    (path,) = RECORDINGS.glob(f"{recording}.*")
    (agent,) = (name for name in Presets.load(None, ToolPaths()).by_name if recording.startswith(name))
    _, verdict_on, _ = replay(tmp_path / "events", agent, path.read_bytes())
    judgement = verdict_on(status)
    assert judgement.reason == reason, judgement
    assert words in judgement.message


@pytest.mark.parametrize("recording", sorted(path.stem for path in RECORDINGS.glob("*-fix.jsonl")))
def test_a_fix_is_told_in_the_form_of_every_engine(recording: str, tmp_path: Path) -> None:
    (path,) = RECORDINGS.glob(f"{recording}.*")
    said, _, use = replay(tmp_path / "events", recording.rpartition("-")[0], path.read_bytes())
    calls = [fields for kind, fields in said if kind is EventKind.TOOL_CALL]
    answers = {fields["tool_call_id"]: fields for kind, fields in said if kind is EventKind.TOOL_RESULT}
    assert ["cat file.txt" in call["input"] for call in calls] == [True, False]
    first, second = (answers[call["tool_call_id"]] for call in calls)
    assert "fixed" in first["output"]
    assert not first["is_error"]
    assert second["is_error"] or recording == "gemini-fix", "whose lines have no exit codes"
    assert "All is done." in "".join(fields["text"] for kind, fields in said if kind is EventKind.TEXT)
    assert use.last_words == "All is done."
    assert (use.tokens, use.cost_usd, use.tool_calls) == (0, None, 2)
    assert use.claimed_tokens in {3 * 1120, 3 * 1100}, "what the scripted model says that it used"
    assert use.turns == sum(kind is EventKind.TURN_END for kind, _ in said) > 0


@pytest.mark.parametrize(
    ("agent", "line"),
    [
        ("claude", '{"type": "system", "subtype": "init", "session_id": SESSION}'),
        ("codex", '{"type": "thread.started", "thread_id": SESSION}'),
        ("gemini", '{"type": "init", "session_id": SESSION}'),
        ("opencode", '{"type": "step_start", "sessionID": SESSION, "part": {}}'),
    ],
)
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("bf35e9ee-ccea-4ca8-b1c1-955918fb3125", True),
        ("ses_dd4707c72ffeyAcFJ65KhccnhE", True),
        *(
            (bad, False)
            for bad in ("", "-c", "--help", "a b", "../x", "a/b", "a\nb", "a;id", "$HOME", "*", "é", "a" * 129)
        ),
    ],
)
def test_a_session_is_a_name_and_nothing_else(tmp_path: Path, agent: str, line: str, given: str, taken: bool) -> None:
    with EventWriter(tmp_path / "events") as writer:
        preset = Presets.load(None, ToolPaths()).by_name[agent]
        task = PresetTask(title=preset.title, install=preset.install, reader=preset.reader)
        reading = transcript(task, writer)
        reading.output(Stream.STDOUT, line.replace("SESSION", json.dumps(given)).encode() + b"\n", 1)
        reading.end()
    assert reading.events.session_id == (given if taken else "")
