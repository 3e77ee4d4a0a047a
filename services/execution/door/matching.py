"""When a request is the one that was recorded: what matters of it, what changes by itself, and where two differ."""

import re
from collections.abc import Mapping
from typing import Any, Final

MATTERS: Final = ("model", "messages", "input", "contents")
"""The members of a request that matter, on any wire: which model is asked, and what is said to it.

Others (the maker's own system prompt, tools, temperatures) come with the program, and with its version.
"""

IGNORED: Final = frozenset({"cache_control", "encrypted_content", "signature", "thoughtSignature"})
"""Members that matter nowhere: what is to be cached, and what providers sign for themselves."""

_MONTHS: Final = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAYS: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*"
VOLATILE: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("id", r"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])"),
        ("id", r"\b[a-z]+-[0-9a-hjkmnp-tv-z]{26}\b"),
        ("time", r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?)?"),
        (
            "time",
            rf"\b(?:{_DAYS},? )?(?:\d\d? {_MONTHS}|{_MONTHS} +\d\d?)(?:,? \d{{4}})?(?:,? +\d\d:\d\d(?::\d\d)?)?\b",
        ),
        ("time", r"\b\d\d?/\d\d?/\d{4}\b"),
        ("time", r"\b\d\d?:\d\d:\d\d(?:[.,]\d+)?\b"),
        ("time", r"(?<!\d)1[5-9]\d{8}(?:\d{3}|\d{6}|\d{9})?(?!\d)"),
        ("duration", r"\b\d+(?:\.\d+)? ?(?:ms|s|sec|secs|seconds?|minutes?|m)\b"),
        ("temporary", r"(?:/var)?/tmp/[^\s\"'`<>|;:,)\]}]+"),
        ("hash", r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b"),
        ("id", r"(?<=Chunk ID: )[0-9a-f]+\b"),  # of codex's shell
        ("process", r"(?<=pid )\d+\b"),
        ("device", r"\b(?:user|device|session|account)_[0-9A-Za-z_-]{8,}"),
    )
)
"""What changes from one run to the next without meaning anything, and the word that stands for it, in any text."""

_AROUND: Final = 24
_SHOWN: Final = 80


def essence(body: object, workspace: str = "") -> object:
    """Return what matters of a request's body, without what changes by itself.

    `workspace` is the path at which its agent has its files.
    """
    if isinstance(body, dict):
        body = {name: body[name] for name in MATTERS if name in body}
    return _steady(body, workspace)


def steady_text(text: str, workspace: str = "") -> str:
    """Return a text without what changes by itself."""
    if workspace:
        text = text.replace(workspace, "<workspace>")
    for name, pattern in VOLATILE:
        text = pattern.sub(f"<{name}>", text)
    return text


def _steady(value: object, workspace: str) -> object:
    match value:
        case str():
            return steady_text(value, workspace)
        case dict():
            return {name: _steady(member, workspace) for name, member in value.items() if name not in IGNORED}
        case list():
            return [_steady(each, workspace) for each in value]
    return value


def difference(recorded: object, asked: object, path: str = "") -> str:
    """Return where two values differ first, and how, for people; empty when they are equal."""
    if isinstance(recorded, Mapping) and isinstance(asked, Mapping):
        for name in [*recorded, *(name for name in asked if name not in recorded)]:
            inner = f"{path}.{name}" if path else str(name)
            if name not in recorded or name not in asked:
                return _told(inner, recorded.get(name, _MISSING), asked.get(name, _MISSING))
            if found := difference(recorded[name], asked[name], inner):
                return found
        return ""
    if isinstance(recorded, list) and isinstance(asked, list):
        for index in range(max(len(recorded), len(asked))):
            one, other = (value[index] if index < len(value) else _MISSING for value in (recorded, asked))
            if found := difference(one, other, f"{path}[{index}]"):
                return found
        return ""
    return "" if type(recorded) is type(asked) and recorded == asked else _told(path, recorded, asked)


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


_MISSING: Final = _Missing()


def _told(path: str, recorded: Any, asked: Any) -> str:  # noqa: ANN401 - values of JSON
    start = 0
    if isinstance(recorded, str) and isinstance(asked, str):
        same = next((at for at, (one, other) in enumerate(zip(recorded, asked, strict=False)) if one != other), None)
        start = max(0, (min(len(recorded), len(asked)) if same is None else same) - _AROUND)
    there = path or "the body"
    return f"at {there} it has {_short(recorded, start)} in the recording, and {_short(asked, start)} here"


def _short(value: Any, start: int) -> str:  # noqa: ANN401 - a value of JSON
    if isinstance(value, str):
        cut = value[start : start + _SHOWN]
        return f"{'…' if start else ''}{cut!r}{'…' if start + _SHOWN < len(value) else ''}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
