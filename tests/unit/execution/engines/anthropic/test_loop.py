"""The parts of the loop that need no model."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.execution.engines.anthropic.history import History, Reply
from services.execution.engines.anthropic.models import Tokens, shows_thoughts
from services.execution.eventlog import EventKind, EventWriter
from services.execution.eventlog.activity import read_activity


def reply(id_: str, *blocks: dict, stop: str = "tool_use") -> Reply:
    return Reply(id_, "m", stop, list(blocks), Tokens(1, 2, 3, 4))


def call(id_: str) -> dict:
    return {"type": "tool_use", "id": id_, "name": "bash", "input": {"command": "true"}}


@pytest.mark.parametrize(
    ("model", "shows"),
    [
        ("claude-sonnet-5-5", True),
        ("claude-opus-5", True),
        ("claude-fable-5-1-20261101", True),
        ("claude-opus-4-8", False),
        ("claude-haiku-5-5", False),
        ("a-model-of-tomorrow", False),
    ],
)
def test_who_shows_thoughts(model: str, shows: bool) -> None:
    assert shows_thoughts(model) is shows


def test_a_history_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    history.say("Do it.")
    history.reply(reply("r1", {"type": "text", "text": "I do."}, call("c1"), call("c2")))
    history.result("c1", "", is_error=False)
    messages = history.messages()
    history.close()
    with (tmp_path / "history").open("ab") as file:
        file.write(b'{"kind": "result", "tool')
    again = History(tmp_path / "history")
    assert again.messages() == messages
    assert [one.call_id for one in again.open_reply().calls] == ["c1", "c2"]
    assert again.results() == {"c1": ("", False)}
    again.result("c2", "two", is_error=True)
    again.close()
    last = History(tmp_path / "history")
    contents = [block.get("content", block.get("text")) for block in last.messages()[-1]["content"]]
    assert contents == ["(no output)", "two"]
    assert last.messages()[-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    last.close()


def test_what_is_said_after_an_answer_closes_it(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    history.say("Do it.")
    assert history.open_reply() is None
    history.reply(reply("r1", stop="max_tokens"))
    assert history.open_reply().id == "r1"
    history.say("Go on.")
    assert history.open_reply() is None
    assert [message["role"] for message in history.messages()] == ["user", "assistant", "user"]
    assert history.messages()[1]["content"], "the API takes no empty message"
    history.close()


def test_a_tally_counts_each_request_once(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "output_tokens": 1, "cache_read_tokens": 0, "cache_write_tokens": 0}
    with EventWriter(tmp_path / "events") as writer:
        writer.fields(EventKind.TEXT, text="cut off", request_id="cut")
        for request_id, cost in (("a", 0.5), ("a", 0.5), ("b", 0.25)):
            writer.fields(EventKind.TEXT, text=f"words of {request_id} ", request_id=request_id)
            writer.fields(EventKind.USAGE, request_id=request_id, model="m", cost_usd=cost, **usage)
        writer.fields(EventKind.TOOL_CALL, tool_call_id="c", tool="bash", input="{}")
        writer.fields(EventKind.TEXT, text="cut off again", request_id="cut again")
    use = read_activity(tmp_path / "events").model_use()
    assert (use.tokens, use.cost_usd, use.turns, use.tool_calls) == (22, 0.75, 2, 1)
    assert use.last_words == "words of b"


def test_one_price_that_is_not_known_makes_the_cost_unknown(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "output_tokens": 1, "cache_read_tokens": 0, "cache_write_tokens": 0}
    with EventWriter(tmp_path / "events") as writer:
        writer.fields(EventKind.USAGE, request_id="a", model="m", cost_usd=0.5, **usage)
        writer.fields(EventKind.USAGE, request_id="b", model="new", **usage)
    assert read_activity(tmp_path / "events").model_use().cost_usd is None


def test_the_runner_of_a_command_imports_nothing_of_a_model() -> None:
    line = "import sys, services.execution.runner.run; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "anthropic",
        "httpx2",
        "pydantic",
        "grpc",
        "google.protobuf",
        "boatyard",
        "sqlalchemy",
        "services.execution.engines.anthropic.run",
    }
    assert heavy.isdisjoint(loaded)
    assert "services.execution.engines.command.run" in loaded, "it is to begin at once when it gets its run"
