r"""Text that somebody else chose, as people are shown it: it cannot pass for more than it is.

A name, a message or an answer that an agent, a remote, a hook or another user chose may hold what a terminal obeys or a
reader does not see: a line break that begins a line of ours, an escape sequence, a character that reverses the order of
those after it. Here each becomes its escape: `\n`, `\x1b`, `\u202e`. All else stays as it is, a backslash too.
"""

import json
import re
from typing import Final

BAR: Final = "  │ "
"""What is before each line of a text of several lines that somebody else chose."""

# C0, DEL and C1; the joiners U+200C and U+200D are left out: scripts and emoji need them, and they move nothing.
_CONTROLS: Final = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
_LINE_BREAKS: Final = r"\n\u2028\u2029"
_BIDIRECTIONAL: Final = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE: Final = r"\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_SURROGATES: Final = r"\ud800-\udfff"

_NOT_IN_LINES: Final = re.compile(f"[{_CONTROLS}\u2028\u2029{_BIDIRECTIONAL}{_INVISIBLE}{_SURROGATES}]")
_NOT_IN_A_LINE: Final = re.compile(f"[{_CONTROLS}\\t{_LINE_BREAKS}{_BIDIRECTIONAL}{_INVISIBLE}{_SURROGATES}]")
_COLOUR: Final = re.compile(r"(\x1b\[[0-9:;]*m)")


def one_line(text: str) -> str:
    """Return the text as a part of one line: with escapes for all that breaks lines, moves a cursor or is not seen."""
    return _NOT_IN_A_LINE.sub(_escape, text)


def lines(text: str) -> str:
    """Return the text as several lines: as `one_line`, but line feeds and tabs stay."""
    return _NOT_IN_LINES.sub(_escape, text)


def coloured(text: str) -> str:
    """Return text that we have coloured as `lines`, with its colours."""
    return "".join(part if number % 2 else lines(part) for number, part in enumerate(_COLOUR.split(text)))


def in_json(document: str) -> str:
    """Return a JSON document on one line, whose strings have JSON's own escapes for what `one_line` escapes."""
    return _NOT_IN_A_LINE.sub(lambda match: json.dumps(match[0])[1:-1], document)


def quoted(text: str) -> list[str]:
    """Return the lines of a text, each as `one_line` and behind a bar that none of our own lines begins with."""
    return [BAR + one_line(line.rstrip("\r")) for line in text.expandtabs().split("\n")]


def message(text: str) -> list[str]:
    """Return the lines of a message: the first as `one_line`, the others quoted."""
    first, line_break, rest = text.strip().partition("\n")
    return [one_line(first), *(quoted(rest) if line_break else ())]


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8, as Python has it in a str
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
