"""Finds the reply to a request from the request alone, so that many conversations may run at once.

The reply's number is the number of the model's messages in the request. Each fault is played once for each
distinct request: when the request is repeated, the next fault follows, and finally the reply.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.kit.replay.script import Fault, Reply, Script


class RefusalError(Exception):
    """The request is answered with one of the API's errors."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Turn:
    """What to answer: the reply's number (from 1), how often this request has come, and the fault of this try."""

    script: Script
    reply: Reply
    number: int
    attempt: int
    fault: Fault | None


class Conversations:
    """The scripts, and the requests so far. Threads may share it."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._scripts = scripts
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def turn(self, request: Mapping[str, Any]) -> Turn:
        """Return the next turn. Raises RefusalError when the API would refuse the request, or no script has a reply."""
        messages = _messages(request)
        first = _text(messages[0])
        script = next((one for one in self._scripts if one.prompt.search(first)), None)
        if script is None:
            raise RefusalError(400, "invalid_request_error", "no script matches a conversation that begins like this")
        number = sum(message["role"] == "assistant" for message in messages)
        if number >= len(script.replies):
            text = f"{script.path.name} has {len(script.replies)} replies, but the conversation continues"
            raise RefusalError(400, "invalid_request_error", text)
        reply, last = script.replies[number], _text(messages[-1])
        if reply.expects is not None and not reply.expects.search(last):
            text = f"reply {number + 1} of {script.path.name} expects {reply.expects.pattern!r}, but got: {last[:500]}"
            raise RefusalError(400, "invalid_request_error", text)
        attempt = self._count(messages)
        fault = reply.faults[attempt - 1] if attempt <= len(reply.faults) else None
        return Turn(script, reply, number + 1, attempt, fault)

    def _count(self, messages: Sequence[Mapping[str, Any]]) -> int:
        digest = hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()
        with self._lock:
            self._seen[digest] += 1
            return self._seen[digest]


def _messages(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Check what the API checks, as far as it would reveal a client's mistakes."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or messages[0].get("role") != "user":
        raise RefusalError(400, "invalid_request_error", "messages: must begin with a message of the user")
    if not isinstance(request.get("max_tokens"), int) or not request.get("model"):
        raise RefusalError(400, "invalid_request_error", "max_tokens and model: are required")
    if request.get("stream") is not True:
        raise RefusalError(400, "invalid_request_error", "stream: must be true; only streams are supported")
    for before, message in pairwise(messages):
        called = {block["id"] for block in _blocks(before) if block.get("type") == "tool_use"}
        answered = {block["tool_use_id"] for block in _blocks(message) if block.get("type") == "tool_result"}
        if before["role"] == message["role"]:
            raise RefusalError(400, "invalid_request_error", "messages: roles must alternate")
        if called != answered:
            text = f"messages: tool_use {sorted(called)} is followed by results of {sorted(answered)}"
            raise RefusalError(400, "invalid_request_error", text)
    return messages


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def _text(message: Mapping[str, Any]) -> str:
    parts = []
    for block in _blocks(message):
        if block.get("type") == "text":
            parts.append(block["text"])
        elif block.get("type") == "tool_result":
            parts.append(_text(block))
    return "\n".join(parts)
