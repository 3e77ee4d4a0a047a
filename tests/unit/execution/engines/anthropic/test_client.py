"""Asking a model that is away, wrong or slow, with the real SDK over real HTTP."""

from pathlib import Path

import pytest

from services.execution.engines.anthropic import client
from services.execution.engines.anthropic.client import ModelClient, ModelFailedError, ModelUnavailableError
from services.execution.engines.anthropic.history import Reply
from services.execution.engines.anthropic.recorder import Recorder
from services.execution.engines.anthropic.task import ModelTask
from services.execution.eventlog import EventReader, EventWriter
from services.execution.eventlog.activity import ModelActivity, read_activity
from tests.kit.replay import replaying, write_script

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Do it."}]}]


async def ask(directory: Path, url: str) -> tuple[Reply | Exception, list[str]]:
    """Ask once; return the answer, or what was raised, and the notes of the event log."""
    task = ModelTask("claude-sonnet-5-5", "Do it.", "Be good.", 5, 1000, None)
    with EventWriter(directory / "events") as writer:
        recorder = Recorder(writer, ModelActivity())
        model = ModelClient(url, "key-4711", task, recorder)
        answer: Reply | Exception
        try:
            answer = await model.answer(MESSAGES)
        except (ModelFailedError, ModelUnavailableError) as error:
            answer = error
        await model.close()
        recorder.flush()
    with EventReader(directory / "events") as reader:
        notes = [record.fields()["text"] for record in reader.read() if "request_id" not in record.fields()]
    return answer, notes


def test_broken_answers_without_a_name_count_each(tmp_path: Path) -> None:
    """What a provider has not named yet when it breaks off is billed all the same."""
    numbers = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), 5)
    with EventWriter(tmp_path / "events") as writer:
        recorder = Recorder(writer, ModelActivity())
        for request_id in ("", "", "msg_1", "msg_1"):
            recorder.usage({"request_id": request_id, "model": "m", "is_partial": True, **numbers})
    (row,) = read_activity(tmp_path / "events").model_use().usage
    assert (row.usage.requests, row.usage.partial_requests, row.usage.tokens) == (3, 3, 60)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(client, "_LONGEST_PAUSE_S", 0.002)


async def test_a_model_that_is_away_is_given_up(tmp_path: Path, hurried: None) -> None:
    answer, notes = await ask(tmp_path, "http://127.0.0.1:9")
    assert isinstance(answer, ModelUnavailableError)
    assert "12 tries" in str(answer)
    assert len(notes) == 11
    assert "cannot be reached" in notes[0]


@pytest.mark.parametrize("fault", ["429", "500", "529", "408", "error", "cut", "quiet", "refused"])
async def test_what_passes_is_tried_again(tmp_path: Path, hurried: None, fault: str) -> None:
    script = write_script(tmp_path / "s.toml", [{"text": "Here I am.", "faults": [fault] * 3}])
    with replaying(tmp_path, script) as replay:
        answer, notes = await ask(tmp_path, replay.url)
    assert isinstance(answer, Reply)
    assert answer.content == [{"type": "text", "text": "Here I am."}]
    assert len(notes) == 3


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "413", "422"])
async def test_what_does_not_pass_is_not(tmp_path: Path, hurried: None, status: str) -> None:
    script = write_script(tmp_path / "s.toml", [{"text": "Here I am.", "faults": [status]}])
    with replaying(tmp_path, script) as replay:
        answer, notes = await ask(tmp_path, replay.url)
    assert isinstance(answer, ModelFailedError)
    assert (f"status {status}" in str(answer), notes) == (True, [])


async def test_who_asks_to_come_back_later_is_obeyed_within_bounds(
    tmp_path: Path, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_LONGEST_RETRY_AFTER_S", 0.2)
    script = write_script(tmp_path / "s.toml", [{"text": "Here I am.", "faults": ["429:0.1", "429:3600"]}])
    with replaying(tmp_path, script) as replay:
        answer, notes = await ask(tmp_path, replay.url)
        first, second = (request["time"] for request in replay.requests())
    assert isinstance(answer, ModelUnavailableError), "it is too long to wait, and too early to ask again"
    assert "status 429" in str(answer)
    assert second - first >= 0.1
    assert len(notes) == 1


async def test_thoughts_and_broken_calls_come_through(tmp_path: Path) -> None:
    tool = {"name": "bash", "input": {"command": "ls"}}
    script = write_script(tmp_path / "s.toml", [{"thinking": "Hm.", "text": "So.", "tools": [tool]}])
    with replaying(tmp_path, script) as replay:
        answer, _ = await ask(tmp_path, replay.url)
    assert isinstance(answer, Reply)
    thinking, text, use = answer.content
    assert thinking == {"type": "thinking", "thinking": "Hm.", "signature": "replay-1-0"}
    assert text == {"type": "text", "text": "So."}
    assert (use["name"], use["input"], answer.stop_reason) == ("bash", {"command": "ls"}, "tool_use")
