"""A conversation on disk: one line of JSON for each thing that was said, durable before it is acted on.

    {"kind": "say", "text": …, "message_id": …}                    text for the model; the id of a message, or null
    {"kind": "reply", "id": …, "model": …, "stop_reason": …, "content": [blocks], "tokens": {…}, "cut": [ids]}
    {"kind": "result", "tool_use_id": …, "content": …, "is_error": …}

A killed runner leaves at most one torn line at the end, which is cut off.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.execution.engines.anthropic.models import Tokens

_CACHED = {"type": "ephemeral"}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call by the model; `was_cut` when its input is incomplete."""

    call_id: str
    tool: str
    arguments: Mapping[str, Any]
    was_cut: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer of the model. `content` is as the API sent it, to be sent back so; `cut` names broken calls."""

    id: str
    model: str
    stop_reason: str
    content: list[dict[str, Any]]
    tokens: Tokens
    cut: tuple[str, ...] = ()

    @property
    def calls(self) -> list[ToolCall]:
        """The tool calls in it, in order."""
        return [
            ToolCall(block["id"], block["name"], block["input"], block["id"] in self.cut)
            for block in self.content
            if block["type"] == "tool_use"
        ]


class History:
    """What was said, in order. What adds to it raises OSError when the disk has no room, and then adds nothing."""

    def __init__(self, path: Path) -> None:
        """Open a conversation, or begin a new one."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._records: list[dict[str, Any]] = []
        with path.open("rb") as file:
            size = 0
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._fd, size)
                    break
                size += len(line)
                self._records.append(json.loads(line))

    @property
    def is_empty(self) -> bool:
        """True when nothing was said yet."""
        return not self._records

    def say(self, text: str, message_id: str | None = None) -> None:
        """Add text for the model; with `message_id`, it is a message that somebody sent."""
        self._append({"kind": "say", "text": text, "message_id": message_id})

    def delivered_messages(self) -> dict[str, str]:
        """Return the sent messages that the model was given, by message id."""
        delivered = [record for record in self._records if record["kind"] == "say" and record.get("message_id")]
        return {record["message_id"]: record["text"] for record in delivered}

    def reply(self, reply: Reply) -> None:
        """Add an answer of the model."""
        self._append({"kind": "reply", **asdict(reply)})

    def result(self, call_id: str, output: str, *, is_error: bool) -> None:
        """Add the result of a tool call."""
        self._append({"kind": "result", "tool_use_id": call_id, "content": output, "is_error": is_error})

    def replies(self) -> list[Reply]:
        """Return all answers of the model."""
        return [_reply(record) for record in self._records if record["kind"] == "reply"]

    def results(self) -> dict[str, tuple[str, bool]]:
        """Return the results of tools, and whether they are errors, by call id."""
        records = [record for record in self._records if record["kind"] == "result"]
        return {record["tool_use_id"]: (record["content"], record["is_error"]) for record in records}

    def open_reply(self) -> Reply | None:
        """Return the last answer unless text for the model followed it; some of its calls may have results."""
        for record in reversed(self._records):
            if record["kind"] == "say":
                return None
            if record["kind"] == "reply":
                return _reply(record)
        return None

    def messages(self) -> list[dict[str, Any]]:
        """Return the conversation in the form that the API takes; it is marked to be cached up to its end."""
        messages: list[dict[str, Any]] = []
        for record in self._records:
            if record["kind"] == "reply":
                content = record["content"] or [{"type": "text", "text": "(nothing)"}]  # the API refuses empty content
                messages.append({"role": "assistant", "content": list(content)})
                continue
            if not messages or messages[-1]["role"] == "assistant":
                messages.append({"role": "user", "content": []})
            messages[-1]["content"].append(_block(record))
        last = messages[-1]["content"]
        last[-1] = {**last[-1], "cache_control": _CACHED}
        return messages

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _append(self, record: dict[str, Any]) -> None:
        line, size = json.dumps(record).encode() + b"\n", os.fstat(self._fd).st_size
        try:
            while line:
                line = line[os.write(self._fd, line) :]
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, size)  # none of it was said, and it may be said again
            raise
        self._records.append(record)


def _reply(record: Mapping[str, Any]) -> Reply:
    return Reply(
        record["id"],
        record["model"],
        record["stop_reason"],
        record["content"],
        Tokens(**record["tokens"]),
        tuple(record["cut"]),
    )


def _block(record: Mapping[str, Any]) -> dict[str, Any]:
    if record["kind"] == "say":
        return {"type": "text", "text": record["text"]}
    # The API refuses an empty text.
    content = record["content"] or "(no output)"
    return {
        "type": "tool_result",
        "tool_use_id": record["tool_use_id"],
        "content": content,
        "is_error": record["is_error"],
    }
