"""Builds a complete answer from the events of a stream."""

from collections.abc import Mapping
from typing import Any

from anthropic.types import RawMessageStreamEvent

from services.common.untrusted_json import parse_json
from services.execution.engines.anthropic.history import Reply
from services.execution.engines.anthropic.models import Tokens
from services.execution.eventlog import EventKind


class BrokenStreamError(Exception):
    """The stream ended early, or an event makes no sense."""


class ReplyBuilder:
    """An answer that is still arriving."""

    def __init__(self) -> None:
        self.id = ""
        self._model = ""
        self._stop_reason: str | None = None
        self._blocks: list[dict[str, Any]] = []
        self._inputs: dict[int, str] = {}
        self._usage: dict[str, Any] = {}
        self._ended = False

    def take(self, event: RawMessageStreamEvent) -> tuple[EventKind, str] | None:
        """Add an event; return the text or thinking in it, if there is any. Raises BrokenStreamError."""
        match event.type:
            case "message_start":
                self.id, self._model = event.message.id, event.message.model
                self._update_usage(event.message.usage.to_dict())
            case "content_block_start":
                if event.index != len(self._blocks):
                    raise BrokenStreamError(f"block {event.index} came as number {len(self._blocks)}")
                self._blocks.append(event.content_block.to_dict())
                return _initial_piece(self._blocks[-1])
            case "content_block_delta":
                return self._grow(event.index, event.delta.to_dict())
            case "message_delta":
                self._stop_reason = event.delta.stop_reason or self._stop_reason
                self._update_usage(event.usage.to_dict())
            case "message_stop":
                self._ended = True
        return None

    def whole(self) -> Reply:
        """Return the answer when the stream is over. Raises BrokenStreamError when it is incomplete."""
        if not self._ended or not self._stop_reason or not self.id:
            raise BrokenStreamError("the answer ended in the middle")
        cut = []
        for index, text in self._inputs.items():
            block = self._blocks[index]
            block["input"] = _parse_object(text)
            if block["input"] is None:
                block["input"] = {}
                cut.append(block["id"])
        return Reply(self.id, self._model, self._stop_reason, self._blocks, self._tokens(), tuple(cut))

    def _grow(self, index: int, delta: dict[str, Any]) -> tuple[EventKind, str] | None:
        if index != len(self._blocks) - 1:
            raise BrokenStreamError(f"a piece came for block {index}")
        block = self._blocks[index]
        match delta["type"]:
            case "text_delta":
                block["text"] = block.get("text", "") + delta["text"]
                return EventKind.TEXT, delta["text"]
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
                return EventKind.THINKING, delta["thinking"]
            case "signature_delta":
                block["signature"] = block.get("signature", "") + delta["signature"]
            case "input_json_delta":
                self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        return None

    def _update_usage(self, usage: Mapping[str, Any]) -> None:
        """Keep the newest numbers: those of a delta are totals for the whole answer so far."""
        self._usage.update({name: value for name, value in usage.items() if value is not None})

    def _tokens(self) -> Tokens:
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        return Tokens(*(int(self._usage.get(name, 0)) for name in names))


def _initial_piece(block: Mapping[str, Any]) -> tuple[EventKind, str] | None:
    """Return the text or thinking in the start of a block; there usually is none."""
    if block["type"] == "text" and block.get("text"):
        return EventKind.TEXT, block["text"]
    if block["type"] == "thinking" and block.get("thinking"):
        return EventKind.THINKING, block["thinking"]
    return None


def _parse_object(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return {}
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
