"""Reads what a request has used from a copy of its answer, while that passes by.

Most of a stream is of no interest here, and is only looked through for the few events that have numbers.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from services.agent.providers import ModelWire
from services.common.untrusted_json import parse_json
from services.execution.door.memory import Held, Memory
from services.execution.door.terms import BILLED_TOOLS, terms_of

_MOST_BYTES: Final = 16 << 20  # of one event, or of an answer that is not a stream
_USAGE_CHUNK_BYTES: Final = 64 << 10  # the most that a chat's event with its usage may have, to be taken out
_MOST_TOKENS: Final = 1 << 40
_DATA: Final = b"data:"
_INTERESTING: Final = {
    ModelWire.MESSAGES: re.compile(rb'"usage"\s*:\s*\{'),
    ModelWire.RESPONSES: re.compile(rb'"type"\s*:\s*"response\.(?:created|completed|incomplete|failed)"'),
    ModelWire.CHAT: re.compile(rb'"usage"\s*:\s*\{'),
    ModelWire.GEMINI: re.compile(rb'"usageMetadata"\s*:\s*\{'),
}
_MARKS: Final = {  # the beginnings of these
    ModelWire.MESSAGES: b'"usage"',
    ModelWire.RESPONSES: b'"response"',
    ModelWire.CHAT: b'"usage"',
    ModelWire.GEMINI: b'"usageMetadata"',
}
_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]{1,200})"')


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request has used, in tokens; each is None until the provider says it.

    `input` is without what came from the cache or went into it; `reasoning` is a part of `output`, and `cache_write_1h`
    of `cache_write`.
    """

    request_id: str = ""
    model: str = ""
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    tier: str = ""
    speed: str = ""
    place: str = ""
    tools: tuple[str, ...] | None = None
    """Tools of the provider's own that were run and are billed, beside searches of the web."""
    searches: int | None = None
    """How often the provider has searched the web."""

    @property
    def terms(self) -> tuple[str, ...]:
        """How the request was served, where that was not as usual."""
        return terms_of(self.tier, self.speed, self.place, *(self.tools or ()))

    def updated(self, later: "Usage") -> "Usage":
        """Return this with all that is said later."""
        said = {name: getattr(later, name) for name in self.__slots__}
        return Usage(
            **{name: value if value not in (None, "") else getattr(self, name) for name, value in said.items()}
        )


class UsageReader:
    """Reads one answer of a model."""

    def __init__(self, wire: ModelWire, memory: Memory, *, is_stream: bool) -> None:
        self.usage = Usage()
        """What is known so far."""
        self.is_whole = False
        """True when the answer has said all that it used, as its end does: whoever has heard that may hang up."""
        self._wire = wire
        self._is_stream = is_stream
        self._held = Held(memory, _MOST_BYTES)
        self._skips = False  # to the end of a line, or of the answer, for which there was no room

    def take(self, data: bytes) -> None:
        """Read what has come."""
        if not self._is_stream:
            self._keep(data)
            return
        if not self._held.data and not self._skips and data.endswith(b"\n") and not self._may_matter(data):
            return
        first, newline, rest = data.partition(b"\n")
        self._keep(first)
        if newline:
            self._end_line()
            *lines, last = rest.split(b"\n")
            for line in lines:
                self._take_line(line)
            self._keep(last)

    def _may_matter(self, data: bytes) -> bool:
        """Return whether whole lines may have one of interest: as fast as it can be, for it is asked of most."""
        return _MARKS[self._wire] in data or (self._wire is ModelWire.CHAT and not self.usage.request_id)

    def end(self) -> None:
        """Read what is left, because nothing follows."""
        if self._is_stream:
            self._end_line()
        elif not self._skips:
            self._learn(bytes(self._held.data))
        self._held.clear()

    def _keep(self, data: bytes) -> None:
        if not self._skips and not self._held.add(data):
            self._held.clear()
            self._skips = True

    def _end_line(self) -> None:
        if not self._skips:
            self._take_line(bytes(self._held.data))
        self._held.clear()
        self._skips = False

    def _take_line(self, line: bytes) -> None:
        if line.startswith(_DATA) and _INTERESTING[self._wire].search(line):
            self._learn(line[len(_DATA) :])
        elif self._wire is ModelWire.CHAT and not self.usage.request_id and (found := _ID.search(line)):
            self.usage = self.usage.updated(Usage(found[1].decode(errors="replace")))

    def _learn(self, text: bytes) -> None:
        try:
            value = parse_json(text)
        except ValueError:  # it is cut off, or no JSON
            return
        for part in value if isinstance(value, list) else [value]:  # Gemini's streams can be a list
            if isinstance(part, dict):
                self.usage = self.usage.updated(_READERS[self._wire](part))
                self.is_whole |= _says_all(self._wire, part)


def _messages(event: Mapping[str, Any]) -> Usage:
    message = _member(event, "message") or event
    usage = _member(event, "usage") or _member(message, "usage")
    ran = _member(usage, "server_tool_use")
    return Usage(
        request_id=_text(message, "id"),
        model=_text(message, "model"),
        input=_count(usage, "input_tokens"),
        output=_count(usage, "output_tokens"),
        cache_read=_count(usage, "cache_read_input_tokens"),
        cache_write=_count(usage, "cache_creation_input_tokens"),
        cache_write_1h=_count(_member(usage, "cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning=_count(_member(usage, "output_tokens_details"), "thinking_tokens"),
        tier=_text(usage, "service_tier"),
        speed=_text(usage, "speed"),
        place=_text(usage, "inference_geo"),
        tools=("code_execution",) if _count(ran, "code_execution_requests") else None,
        searches=_count(ran, "web_search_requests"),
    )


def _responses(event: Mapping[str, Any]) -> Usage:
    response = _member(event, "response") or event
    usage, calls = _member(response, "usage"), list(_calls(response))
    numbers = _of_openai(
        response, usage, ("input_tokens", "output_tokens"), ("input_tokens_details", "output_tokens_details")
    )
    return replace(
        numbers,
        tools=tuple(name for name in BILLED_TOOLS if name in calls) if calls else None,
        searches=calls.count("web_search") if calls else None,
    )


def _calls(response: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tools that a provider has run itself; of the web, pages that it opens are not billed."""
    items = response.get("output")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and (kind := _text(item, "type")).endswith("_call"):
            if kind == "web_search_call" and _text(_member(item, "action"), "type") not in ("", "search"):
                continue
            yield kind.removesuffix("_call")


def _chat(event: Mapping[str, Any]) -> Usage:
    usage = _member(event, "usage")
    return _of_openai(
        event, usage, ("prompt_tokens", "completion_tokens"), ("prompt_tokens_details", "completion_tokens_details")
    )


def _of_openai(
    answer: Mapping[str, Any], usage: Mapping[str, Any], totals: tuple[str, str], details: tuple[str, str]
) -> Usage:
    read, written = (_count(usage, name) for name in totals)
    of_input, of_output = (_member(usage, name) for name in details)
    cached, stored = _count(of_input, "cached_tokens"), _count(of_input, "cache_write_tokens")
    return Usage(
        request_id=_text(answer, "id"),
        model=_text(answer, "model"),
        input=None if read is None else max(0, read - (cached or 0) - (stored or 0)),
        output=written,
        cache_read=cached,
        cache_write=stored,
        reasoning=_count(of_output, "reasoning_tokens"),
        tier=_text(answer, "service_tier"),
    )


def _gemini(answer: Mapping[str, Any]) -> Usage:
    usage = _member(answer, "usageMetadata")
    read, cached = _count(usage, "promptTokenCount"), _count(usage, "cachedContentTokenCount")
    written, thought = _count(usage, "candidatesTokenCount"), _count(usage, "thoughtsTokenCount")
    tools = _count(usage, "toolUsePromptTokenCount")
    return Usage(
        request_id=_text(answer, "responseId"),
        model=_text(answer, "modelVersion"),
        input=None if read is None else max(0, read - (cached or 0)) + (tools or 0),
        output=None if written is None and thought is None else (written or 0) + (thought or 0),
        cache_read=cached,
        reasoning=thought,
        tier=_text(usage, "serviceTier") or _text(usage, "trafficType"),
        searches=sum(_searches(answer)) or None,
    )


def _searches(answer: Mapping[str, Any]) -> Iterator[int]:
    candidates = answer.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else ():
        if isinstance(candidate, dict):
            queries = _member(candidate, "groundingMetadata").get("webSearchQueries")
            yield len(queries) if isinstance(queries, list) else 0


_READERS: Final = {
    ModelWire.MESSAGES: _messages,
    ModelWire.RESPONSES: _responses,
    ModelWire.CHAT: _chat,
    ModelWire.GEMINI: _gemini,
}


def _says_all(wire: ModelWire, event: Mapping[str, Any]) -> bool:
    """Return whether an event has the usage of the whole answer: some providers count aloud while they write, too."""
    match wire:
        case ModelWire.MESSAGES:
            return "usage" in event  # at the beginning it is in `message`
        case ModelWire.RESPONSES:
            return bool(_member(_member(event, "response") or event, "usage"))
        case ModelWire.CHAT:
            return bool(_member(event, "usage")) and all(_ended(event.get("choices"), "finish_reason"))
        case ModelWire.GEMINI:
            ended = _ended(event.get("candidates"), "finishReason")
            return bool(ended) and all(ended)


def _ended(answers: object, reason: str) -> list[bool]:
    """Return of each answer whether it has a reason why it has ended."""
    return [isinstance(each, dict) and bool(each.get(reason)) for each in answers] if isinstance(answers, list) else []


def _member(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = value.get(name)
    return member if isinstance(member, dict) else {}


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    return text[:200] if isinstance(text, str) else ""


def _count(value: Mapping[str, Any], name: str) -> int | None:
    count = value.get(name)
    return count if type(count) is int and 0 <= count < _MOST_TOKENS else None


class UsageChunkFilter:
    """Takes the event with the usage out of a chat's stream, because we asked for it and the agent did not."""

    def __init__(self) -> None:
        self._event = b""

    def take(self, data: bytes) -> bytes:
        """Return what of the stream may be passed on now: whole events, but for that one."""
        *events, self._event = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", self._event + data)
        if len(self._event) > _USAGE_CHUNK_BYTES:
            events, self._event = [*events, self._event], b""
        return b"".join(_without_usage(events))

    def rest(self) -> bytes:
        """Return what is left at the end of the stream."""
        return self._event


def _without_usage(events: list[bytes]) -> Iterator[bytes]:
    for event in events:
        if not (_INTERESTING[ModelWire.CHAT].search(event) and re.search(rb'"choices"\s*:\s*\[\s*\]', event)):
            yield event
