"""What a model used and did, counted from its execution's events: each request and each call counts once."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.agent.usage import UsageSums
from services.execution.eventlog import DamagedRecordError, EventKind, EventReader
from services.execution.model import ModelUse

_LAST_WORDS_BYTES = 2048
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


@dataclass(slots=True)
class ModelActivity:
    """Counts events, which must come in their order."""

    requests: set[str] = field(default_factory=set)
    """Ids of the requests that the model has answered completely."""
    counted: set[str] = field(default_factory=set)
    """Ids of the requests whose use is counted, broken answers included."""
    turn_ends: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    """Ids of the tool calls that have an event."""
    results: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    """Ids of the messages that were delivered."""
    asked: dict[str, str] = field(default_factory=dict)
    """Ids of the permissions that were asked for, by the ids of their tool calls."""
    answered: set[str] = field(default_factory=set)
    """Ids of the permissions whose answers have an event."""
    sums: UsageSums = field(default_factory=UsageSums)
    tokens: int = 0
    _cost_usd: float = 0.0
    _cost_known: bool = True
    _words: dict[str, str] = field(default_factory=dict)
    _last_words: str = ""

    def take(self, kind: EventKind, fields: Mapping[str, Any], time_ns: int) -> None:
        """Count one event, which was written at this time, in nanoseconds since 1970."""
        match kind:
            case EventKind.TEXT:
                request_id = fields["request_id"]
                self._words = {request_id: (self._words.get(request_id, "") + fields["text"])[-_LAST_WORDS_BYTES:]}
            case EventKind.USAGE if fields["request_id"] not in self.counted:
                self.counted.add(fields["request_id"])
                self.sums.add(fields, time_ns)
                self.tokens += sum(fields[name] for name in _TOKENS)
                self._cost_known &= "cost_usd" in fields
                self._cost_usd += fields.get("cost_usd", 0.0)
                if not fields.get("is_partial"):
                    self.requests.add(fields["request_id"])
                    self._last_words = self._words.get(fields["request_id"], self._last_words)
            case EventKind.TOOL_CALL:
                self.calls.add(fields["tool_call_id"])
            case EventKind.TOOL_RESULT:
                self.results.add(fields["tool_call_id"])
            case EventKind.MESSAGE_DELIVERED:
                self.delivered.add(fields["message_id"])
            case EventKind.PERMISSION_REQUEST:
                self.asked[fields["tool_call_id"]] = fields["permission_id"]
            case EventKind.PERMISSION_ANSWER:
                self.answered.add(fields["permission_id"])
            case EventKind.TURN_END:
                self.turn_ends.add(fields["request_id"])
                self._last_words = self._words.get(fields["request_id"], self._last_words)

    def model_use(self) -> ModelUse:
        """Return the totals."""
        words = self._last_words.strip().encode()[-_LAST_WORDS_BYTES:].decode(errors="ignore")
        cost = self._cost_usd if self._cost_known else None
        return ModelUse(self.tokens, cost, len(self.requests), len(self.calls), words, usage=self.sums.result())


def read_activity(events: Path) -> ModelActivity:
    """Count the events of a log; of a damaged one, those before the damage."""
    result = ModelActivity()
    with contextlib.suppress(FileNotFoundError, DamagedRecordError), EventReader(events) as reader:
        while records := reader.read():
            for record in records:
                if record.kind is not EventKind.OUTPUT:
                    result.take(record.kind, record.fields(), record.time_ns)
    return result
