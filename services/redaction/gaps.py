"""Texts that were cut before they were redacted: of a secret at the cut a part is left, which no search finds.

Whoever cuts a text leaves GAP there. At each GAP, the end of what is before it and the beginning of what follows are
compared with the parts of secrets.
"""

from collections.abc import Callable, Iterable

from services.redaction.strand import Redactor

GAP = "…"
_LEAST_PART = 4
"""Fewer bytes of a secret than these are no part of it that says anything."""

_Part = Callable[[bytes, int], bytes]


def around_gaps(redactor: Redactor, data: bytes) -> bytes:
    """Redact data, and what is left of secrets at its gaps."""
    parts = redactor.bytes(data).split(GAP.encode())
    for at, part in enumerate(parts):
        if at:
            shown = part.lstrip(b" ")
            length, mark = _part_of(redactor.needles, lambda needle, length: needle[-length:], shown.startswith)
            part = part[: len(part) - len(shown)] + mark + shown[length:]  # noqa: PLW2901 - cut at both ends
        if at < len(parts) - 1:
            shown = part.rstrip(b" ")
            length, mark = _part_of(redactor.needles, lambda needle, length: needle[:length], shown.endswith)
            part = shown[: len(shown) - length] + mark + part[len(shown) :]  # noqa: PLW2901 - as above
        parts[at] = part
    return GAP.encode().join(parts)


def text_around_gaps(redactor: Redactor, text: str) -> str:
    """Redact a text as `around_gaps` does."""
    return around_gaps(redactor, text.encode("utf-8", "replace")).decode("utf-8", "replace")


def _part_of(needles: Iterable[tuple[bytes, str]], part: _Part, is_there: Callable[[bytes], bool]) -> tuple[int, bytes]:
    """Return the length of the longest part of a secret that is there, and what to show for it; nothing for none."""
    found = (0, b"")
    for needle, name in needles:
        for length in range(len(needle) - 1, max(found[0], _LEAST_PART - 1), -1):
            if is_there(part(needle, length)):
                found = length, f"[redacted:{name}]".encode()
                break
    return found
