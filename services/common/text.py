"""Text at the edge of the contract, whose `string` cannot hold what is not UTF-8.

Inside, what git, file systems and programs say is bytes. Here it becomes text: `lossy`, with its bytes beside it
(`raw`) or a mark (`is_utf8`), and never anything that a message refuses.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

_LONGEST_CHARACTER = 4


def is_utf8(data: bytes) -> bool:
    """True when the text of `data` is all of it."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def lossy(data: bytes) -> str:
    """Return the text, with U+FFFD in place of each part that is not UTF-8."""
    return data.decode("utf-8", "replace")


def raw(data: bytes) -> bytes:
    """Return what to send beside the lossy text: the bytes themselves; nothing when the text is all of them."""
    return b"" if is_utf8(data) else data


def raw_list(values: Iterable[bytes]) -> Sequence[bytes]:
    """Return what to send beside a list of lossy texts: `raw` of each; nothing when the texts are all of them."""
    beside = [raw(value) for value in values]
    return beside if any(beside) else ()


def bytes_of(text: str, raw_bytes: bytes) -> bytes:
    """Return the bytes that were sent as lossy text, with `raw` beside it."""
    return raw_bytes or text.encode()


def bytes_of_list(texts: Sequence[str], raw_list_: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the bytes that were sent as a list of lossy texts, with `raw_list` beside it."""
    return tuple(map(bytes_of, texts, raw_list_ or [b""] * len(texts)))


def without_cut_character(end: bytes) -> bytes:
    """Return the end of a text from its first whole character on: a cut leaves at most three bytes of one before."""
    # The bytes of a character after its first are 0x80 to 0xBF, and no character begins with such a byte. Three of them
    # or fewer, alone, are all that is left of a character; more are not UTF-8, and stay.
    alone = len(end) if len(end) < _LONGEST_CHARACTER else 0
    start = next((i for i, byte in enumerate(end[:_LONGEST_CHARACTER]) if not 0x80 <= byte < 0xC0), alone)
    return end[start:]


def without_halves(text: str) -> str:
    """Return a text with `?` in place of the halves of characters that JSON can have, and no message can."""
    return text.encode("utf-8", "replace").decode()


def path_to_text(path: Path) -> str:
    """Write a path of ours. Raises UnicodeDecodeError, which does not happen below a data directory: see Home."""
    return os.fsencode(path).decode()


def path_from_text(text: str) -> Path:
    """Read a path, whatever encoding this process has for its own."""
    return Path(os.fsdecode(text.encode()))
