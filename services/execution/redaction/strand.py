"""Finds secrets in a flow of bytes, whatever pieces it comes in.

Looking must cost next to nothing where there is nothing. Every needle and every prefix has a byte that is rare in
text; a block without it, which is found out at the speed of memory, is done with. A block with it is searched in C.

What may be the beginning of a secret is held back: so many bytes as the secret has, at most. When nothing follows for
a while, it is told after all, unless it is half of a secret or more; what was told is remembered, and when the rest
comes, the rest is redacted. So a prompt is never kept from people for long, and no secret is ever recorded whole.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.execution.redaction.formats import FORMATS, Format
from services.execution.redaction.needles import needles

# From rare to common in what programs print; lower case letters, in the order of their rareness in English, come last.
_RARE = (
    bytes(range(128, 256)) + b"~^`|@#$%&*?!;<>{}[]+\\ZQXJKVWYGHBUPMFNLDROCIATSE'\"=()/_:,.-zqxjkvbpygfwmucldrhsnioate"
)
_RANK = {byte: rank for rank, byte in reversed(list(enumerate(_RARE)))}
_LONGEST_PREFIX = max(len(prefix) for one in FORMATS for prefix in one.prefixes)

Piece = slice | bytes
"""A part of the buffer that is to be recorded, or what takes the place of a secret."""


def _rarest(text: bytes) -> int:
    """The position of the byte that is the least to be expected."""
    return min(range(len(text)), key=lambda at: _RANK.get(text[at], len(_RANK)))


class _Prefixes:
    """The prefixes of all formats, grouped by a rare byte of theirs: only around that byte they are looked for."""

    def __init__(self) -> None:
        groups: dict[int, list[tuple[bytes, int, Format]]] = {}
        for one in FORMATS:
            for prefix in map(str.encode, one.prefixes):
                at = _rarest(prefix)
                groups.setdefault(prefix[at], []).append((prefix, at, one))
        self._groups = [(bytes([byte]), self._around(byte, group), group) for byte, group in groups.items()]
        begun = {
            prefix.encode()[:length] for one in FORMATS for prefix in one.prefixes for length in range(1, len(prefix))
        }
        ordered = sorted(begun, key=len, reverse=True)
        self._begun = re.compile(b"(?:" + b"|".join(map(re.escape, ordered)) + rb")\Z")

    @staticmethod
    def _around(byte: int, group: list[tuple[bytes, int, Format]]) -> re.Pattern[bytes]:
        ways = []
        for prefix, at, _ in group:
            head, tail = re.escape(prefix[: at + 1]), re.escape(prefix[at + 1 :])
            ways.append(b"(?<=" + head + b")" + (b"(?=" + tail + b")" if tail else b""))
        # It begins with a literal, so that the engine runs to the next one in a tight loop.
        return re.compile(re.escape(bytes([byte])) + b"(?:" + b"|".join(ways) + b")")

    def places(self, buffer: bytearray, end: int) -> Iterator[tuple[int, Format]]:
        """Where a token may begin, and of which form."""
        for byte, around, group in self._groups:
            first = buffer.find(byte, 0, end)
            if first < 0:
                continue
            for hit in around.finditer(buffer, first, end):
                for prefix, at, one in group:
                    place = hit.start() - at
                    if place >= 0 and buffer.startswith(prefix, place, end):
                        yield place, one

    def begun(self, buffer: bytearray, start: int, end: int) -> int | None:
        """Where a prefix begins, not before `start`, that the end of the buffer cuts off."""
        hit = self._begun.search(buffer, max(start, end - _LONGEST_PREFIX), end)
        return hit.start() if hit else None


_PREFIXES = _Prefixes()


@dataclass(frozen=True, slots=True)
class _Found:
    """A secret in the buffer; `more` is what may follow it in the next piece, and belongs to it."""

    start: int
    end: int
    name: str
    more: re.Pattern[bytes] | None = None


@dataclass(frozen=True, slots=True)
class _Open:
    """What may become a secret; `tellable` while it is so little of one that it may be told."""

    start: int
    tellable: bool


class Redactor:
    """What is to be kept out of one execution's events."""

    def __init__(self, secrets: Mapping[str, bytes] | None = None) -> None:
        """`secrets` are values by name, of at least `needles.SHORTEST` bytes."""
        self._needles = [
            (needle, bytes([needle[_rarest(needle)]]), name) for needle, name in needles(secrets or {}).items()
        ]

    def strand(self) -> "Strand":
        """Begin with a flow of bytes."""
        return Strand(self)

    def bytes(self, data: bytes) -> bytes:
        """Redact what is there as a whole."""
        buffer = bytearray(data)
        pieces, _ = Strand(self).take(buffer, len(buffer), last=True)
        return join(buffer, pieces) if any(isinstance(piece, bytes) for piece in pieces) else data

    def text(self, text: str) -> str:
        """Redact a text."""
        data = text.encode("utf-8", "replace")
        clean = self.bytes(data)
        return text if clean is data else clean.decode("utf-8", "replace")

    def value(self, value: object) -> object:
        """Redact every text in a value of JSON."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {key: self.value(one) for key, one in value.items()}
            case list() | tuple():
                return [self.value(one) for one in value]
        return value

    def found(self, buffer: bytearray, end: int, before: int, *, last: bool) -> tuple[list[_Found], list[_Open]]:
        """All secrets in the buffer, and all tokens that may grow; `before` is the byte before it, or -1."""
        found: list[_Found] = []
        open_: list[_Open] = []
        for place, one in _PREFIXES.places(buffer, end):
            if one.begins_word and _is_word(buffer[place - 1] if place else before):
                continue
            match _judge(buffer, end, place, one, last):
                case _Found() as whole:
                    found.append(whole)
                case _Open() as candidate:
                    open_.append(candidate)
        # After them: of two that begin and end together, the one that may go on counts.
        for needle, byte, name in self._needles:
            if buffer.find(byte, 0, end) >= 0:
                at = buffer.find(needle, 0, end)
                while at >= 0:
                    found.append(_Found(at, at + len(needle), name))
                    at = buffer.find(needle, at + 1, end)
        return found, open_

    def begun(self, buffer: bytearray, start: int, end: int) -> list[_Open]:
        """What the end of the buffer cuts off, not before `start`: of each needle, and of any prefix."""
        cut = [
            _Open(begun, end - begun < len(needle) // 2)
            for needle, _, _ in self._needles
            if (begun := _begun(needle, buffer, start, end)) is not None
        ]
        if (begun := _PREFIXES.begun(buffer, start, end)) is not None:
            cut.append(_Open(begun, tellable=True))
        return cut


def _judge(buffer: bytearray, end: int, place: int, one: Format, last: bool) -> _Found | _Open | None:
    """What begins at `place` with a prefix of this form."""
    whole = one.accepts.match(buffer, place, end)
    grown = one.grows.match(buffer, place, end)
    may_grow = not last and grown is not None and grown.end() == end and end - place < one.cap
    if whole is not None and (one.more is not None or not may_grow):
        return _Found(place, whole.end(), one.name, one.more if whole.end() == end else None)
    if may_grow:
        return _Open(place, tellable=whole is None and end - place < one.cap // 2)
    return None


def _begun(needle: bytes, buffer: bytearray, start: int, end: int) -> int | None:
    """Where the needle begins, not before `start`, if the end of the buffer cuts it off."""
    head = needle[:1]
    at = buffer.find(head, max(start, end - len(needle) + 1), end)
    while at >= 0:
        if needle.startswith(buffer[at:end]):
            return at
        at = buffer.find(head, at + 1, end)
    return None


def _is_word(byte: int) -> bool:
    return byte >= 0 and (chr(byte).isascii() and (chr(byte).isalnum() or byte == ord("_")))


class Strand:
    """One flow of bytes. Its caller keeps the bytes, and moves what is kept to the front of the buffer."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._more: re.Pattern[bytes] | None = None
        self._before = -1
        self._told = 0
        self.tellable = False
        """Whether what is kept may be told when nothing follows: see `tell`."""

    def take(self, buffer: bytearray, end: int, *, last: bool = False) -> tuple[list[Piece], int]:
        """Look at `buffer[:end]`, which begins with what was kept. Return what to record, and from where to keep."""
        cursor, written = 0, self._told
        if self._more is not None and (rest := self._more.match(buffer, 0, end)):
            cursor = written = rest.end()
            if cursor == end:
                self.tellable = False
                return [], end
        self._more = None
        found, growing = self._redactor.found(buffer, end, self._before, last=last)
        cut = [] if last else self._redactor.begun(buffer, cursor, end)
        pieces: list[Piece] = []
        waits = False
        for one in sorted(found, key=lambda one: (one.start, -one.end)):
            if one.start < cursor:
                continue
            if any(cursor <= candidate.start <= one.start for candidate in (*growing, *cut)):
                waits = True  # what began before it is to be decided first
                break
            if one.start > written:
                pieces.append(slice(written, one.start))
            pieces.append(f"[redacted:{one.name}]".encode())
            cursor, written, self._more = one.end, max(written, one.end), one.more
            if any(candidate.start < cursor for candidate in cut):  # it began in what is gone now, another may after it
                cut = self._redactor.begun(buffer, cursor, end)
        left = [candidate for candidate in (*growing, *cut) if candidate.start >= cursor]
        keep = min((candidate.start for candidate in left), default=end)
        if keep > written:
            pieces.append(slice(written, keep))
        self._told = max(0, written - keep)
        self.tellable = not waits and end - keep > self._told and all(candidate.tellable for candidate in left)
        if keep:
            self._before = buffer[keep - 1]
        return pieces, keep

    def tell(self, end: int) -> slice:
        """Return what of the kept `buffer[:end]` is to be recorded now; it stays, to know the rest by."""
        told, self._told, self.tellable = self._told, end, False
        return slice(told, end)


class TextFlow:
    """A flow of text that comes in small pieces, and keeps its own bytes."""

    def __init__(self, redactor: Redactor) -> None:
        self._strand = redactor.strand()
        self._kept = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, text: str, *, last: bool = False) -> str:
        """Return what may be recorded by now; with `last`, all the rest."""
        self._kept += text.encode("utf-8", "replace")
        pieces, keep = self._strand.take(self._kept, len(self._kept), last=last)
        clean = self._decoder.decode(join(self._kept, pieces), last)
        del self._kept[:keep]
        return clean


def join(buffer: bytearray, pieces: list[Piece]) -> bytes:
    """Put together what is to be recorded."""
    return b"".join(bytes(buffer[piece]) if isinstance(piece, slice) else piece for piece in pieces)
