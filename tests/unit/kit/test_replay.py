"""The player: which reply is due, what it refuses, and what scripts it cannot play."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.agent.recordings import head_of
from tests.kit.replay import bash, write_script
from tests.kit.replay.conversation import Conversations, RefusalError
from tests.kit.replay.script import ScriptError, read_script

REQUEST = {"model": "m", "max_tokens": 10, "stream": True}
USER = {"role": "user", "content": "Do it."}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "bash", "input": {}}]}


def result(text: str, call_id: str = "c") -> dict:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": text}]}


@pytest.fixture
def conversations(tmp_path: Path) -> Conversations:
    replies = [{"tools": [bash("ls")], "faults": ["429:2", "cut"]}, {"text": "Done.", "expects": "OK"}]
    other = write_script(tmp_path / "other.toml", [{"text": "Other."}], prompt="other")
    return Conversations([read_script(other), read_script(write_script(tmp_path / "script.toml", replies))])


def test_the_request_alone_says_which_reply_is_due(conversations: Conversations) -> None:
    first = {**REQUEST, "messages": [USER]}
    faults = [conversations.turn(first).fault for _ in range(3)]
    assert [(fault.kind, fault.seconds) if fault else None for fault in faults] == [("429", 2.0), ("cut", None), None]
    second = conversations.turn({**REQUEST, "messages": [USER, CALLED, result("all OK")]})
    assert (second.number, second.attempt) == (2, 1)
    assert conversations.turn({**REQUEST, "messages": [{**USER, "content": "other"}]}).script.path.name == "other.toml"


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([], "must begin"),
        ([USER, CALLED, result("not well")], "expects 'OK'"),
        ([USER, CALLED, result("OK", "another")], "followed by results"),
        ([USER, CALLED, USER], "followed by results"),
        ([USER, USER], "alternate"),
        ([USER, CALLED, result("OK"), CALLED, result("OK")], "has 2 replies"),
    ],
)
def test_what_the_api_or_the_script_would_not_have(conversations: Conversations, messages: list, word: str) -> None:
    with pytest.raises(RefusalError, match=re.escape(word)):
        conversations.turn({**REQUEST, "messages": messages})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "origin"),
        ('origin = "guessed"', "origin"),
        ('origin = "scripted"', "no [[reply]]"),
        ('origin = "scripted"\n[[reply]]\nfaults = ["flood"]', "not a fault"),
        ('origin = "scripted"\n[[reply]]\nexpects = "("', "unterminated"),
        ("origin = ", "Invalid value"),
    ],
)
def test_a_script_that_cannot_be_played_is_said_at_the_start(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "script.toml").write_text(text)
    with pytest.raises(ScriptError, match=re.escape(word)):
        read_script(tmp_path / "script.toml")
    command = [sys.executable, "-m", "tests.kit.replay", str(tmp_path / "script.toml")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_the_demo_says_that_it_is_scripted() -> None:
    with (Path(__file__).parents[3] / "examples" / "demo" / "repair.jsonl").open("rb") as recording:
        assert "written by hand, and is not a model's" in head_of(recording.readline())["about"]
