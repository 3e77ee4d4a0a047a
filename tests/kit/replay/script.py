"""Scripts: what the model says in a conversation, turn by turn, in TOML.

    origin = "scripted"            # or "recorded": where it comes from; required, and told at the start
    about = "Repairs a test."      # for people
    prompt = "tests pass"          # played for conversations whose first message matches (default: for all)
    pace = 0.02                    # seconds between two pieces of a reply (default: 0)

    [[reply]]                      # the first reply, the second, …
    expects = "FAILED"             # what the message before it must match, else the conversation left the script
    thinking = "I should look."    # all of these are optional
    text = "Let me look at it."
    tools = [{ name = "bash", input = { command = "ls" } }]
    usage = { input = 900, output = 40, cache_read = 0, cache_write = 0 }
    stop = "end_turn"              # why it stops (default: "tool_use" with tools, else "end_turn")
    faults = ["429:1", "cut"]      # how the first tries for this reply go, one each; then it is given

Faults: an HTTP status such as "429" ("429:2" also says to come back in 2 s), "refused" (the connection closes without
an answer), "error" (an error event in the stream), "cut" (the connection breaks in mid-stream), "quiet" (the stream
ends cleanly in the middle), "silence:20" (nothing comes in mid-stream for 20 s, and then the rest).
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ORIGINS = ("scripted", "recorded")
_FAULT = re.compile(r"(?P<kind>[45]\d\d|refused|error|cut|quiet|silence)(:(?P<seconds>\d+(\.\d+)?))?")


class ScriptError(Exception):
    """A script cannot be played."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How one try fails: a kind of the list above, or an HTTP status; `seconds` if it has some."""

    kind: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of the model; `blocks` are content blocks as in the API, without ids."""

    blocks: Sequence[Mapping[str, Any]]
    stop: str
    usage: Mapping[str, int]
    expects: re.Pattern[str] | None = None
    faults: Sequence[Fault] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation. `pace` is in seconds between two pieces of a reply."""

    path: Path
    origin: str
    prompt: re.Pattern[str]
    pace: float
    replies: Sequence[Reply] = field(default_factory=tuple)


def read_script(path: Path) -> Script:
    """Read a script. Raises ScriptError."""
    try:
        return _script(path, tomllib.loads(path.read_text()))
    except (OSError, ValueError, LookupError, TypeError, re.error, ScriptError) as error:
        raise ScriptError(f"{path}: {error}") from error


def _script(path: Path, document: Mapping[str, Any]) -> Script:
    if document.get("origin") not in ORIGINS:
        raise ScriptError(f"origin must be {' or '.join(ORIGINS)}")
    replies = tuple(_reply(entry) for entry in document.get("reply", ()))
    if not replies:
        raise ScriptError("has no [[reply]]")
    prompt = re.compile(document.get("prompt", ""), re.DOTALL)
    return Script(path, document["origin"], prompt, float(document.get("pace", 0)), replies)


def _reply(entry: Mapping[str, Any]) -> Reply:
    blocks: list[dict[str, Any]] = []
    if thinking := entry.get("thinking"):
        blocks.append({"type": "thinking", "thinking": thinking, "signature": ""})
    if text := entry.get("text"):
        blocks.append({"type": "text", "text": text})
    tools = entry.get("tools", ())
    blocks += [{"type": "tool_use", "name": tool["name"], "input": tool.get("input", {})} for tool in tools]
    usage = entry.get("usage", {})
    return Reply(
        blocks=blocks,
        stop=entry.get("stop", "tool_use" if tools else "end_turn"),
        usage={
            "input_tokens": usage.get("input", 0),
            "output_tokens": usage.get("output", 0),
            "cache_read_input_tokens": usage.get("cache_read", 0),
            "cache_creation_input_tokens": usage.get("cache_write", 0),
        },
        expects=re.compile(entry["expects"], re.DOTALL) if "expects" in entry else None,
        faults=tuple(map(_fault, entry.get("faults", ()))),
    )


def _fault(text: object) -> Fault:
    match = _FAULT.fullmatch(str(text))
    if match is None:
        raise ScriptError(f"{text!r} is not a fault")
    return Fault(match["kind"], None if match["seconds"] is None else float(match["seconds"]))
