"""Finds secrets in a stream of bytes, whatever pieces it arrives in.

Searching must cost next to nothing when there is nothing to find. Every needle and every prefix has a byte that is rare
in text. A block without that byte, which is checked at the speed of memory, needs nothing more. A block with it is
searched in C.

What may be the beginning of a secret is held back: at most as many bytes as the secret has. When nothing follows for a
while, it is released after all, unless it is half of a secret or more. What was released is remembered, and when the
rest arrives, the rest is redacted. So a prompt is never held back for long, and no secret is ever recorded completely.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.redaction.formats import FORMATS, Format
from services.redaction.needles import needles

# From rare to common in what programs print; lower case letters, in the order of their rarity in English, come last.
_RARE = (
    bytes(range(128, 256)) + b"~^`|@#$%&*?!;<>{}[]+\\ZQXJKVWYGHBUPMFNLDROCIATSE'\"=()/_:,.-zqxjkvbpygfwmucldrhsnioate"
)
_RANK = {byte: rank for rank, byte in reversed(list(enumerate(_RARE)))}
_LONGEST_PREFIX = max(len(prefix) for one in FORMATS for prefix in one.prefixes)

Piece = slice | bytes
"""A part of the buffer to be recorded, or the replacement of a secret."""


def _rarest(text: bytes) -> int:
    """Return the position of the rarest byte."""
    return min(range(len(text)), key=lambda at: _RANK.get(text[at], len(_RANK)))


class _Prefixes:
    """The prefixes of all formats, grouped by their rarest byte: they are looked for only around that byte."""

    def __init__(self) -> None:
        groups: dict[int, list[tuple[bytes, int, Format]]] = {}
        for one in FORMATS:
            for prefix in map(str.encode, one.prefixes):
                at = _rarest(prefix)
                groups.setdefault(prefix[at], []).append((prefix, at, one))
        self._groups = [(bytes([byte]), self._around(byte, group), group) for byte, group in groups.items()]
        beginnings = {
            prefix.encode()[:length] for one in FORMATS for prefix in one.prefixes for length in range(1, len(prefix))
        }
        ordered = sorted(beginnings, key=len, reverse=True)
        self._cut_off = re.compile(b"(?:" + b"|".join(map(re.escape, ordered)) + rb")\Z")

    @staticmethod
    def _around(byte: int, group: list[tuple[bytes, int, Format]]) -> re.Pattern[bytes]:
        alternatives = []
        for prefix, at, _ in group:
            head, tail = re.escape(prefix[: at + 1]), re.escape(prefix[at + 1 :])
            alternatives.append(b"(?<=" + head + b")" + (b"(?=" + tail + b")" if tail else b""))
        # The pattern begins with a literal, so that the regex engine skips to the next one in a tight loop.
        return re.compile(re.escape(bytes([byte])) + b"(?:" + b"|".join(alternatives) + b")")

    def candidates(self, buffer: bytearray, end: int) -> Iterator[tuple[int, Format]]:
        """Yield where a token may begin, and of which form."""
        for byte, around, group in self._groups:
            first = buffer.find(byte, 0, end)
            if first < 0:
                continue
            for hit in around.finditer(buffer, first, end):
                for prefix, at, one in group:
                    start = hit.start() - at
                    if start >= 0 and buffer.startswith(prefix, start, end):
                        yield start, one

    def cut_off(self, buffer: bytearray, start: int, end: int) -> int | None:
        """Return where a prefix begins that the end of the buffer cuts off, at `start` or later; None for nowhere."""
        hit = self._cut_off.search(buffer, max(start, end - _LONGEST_PREFIX), end)
        return hit.start() if hit else None


_PREFIXES = _Prefixes()


@dataclass(frozen=True, slots=True)
class _Match:
    """A secret in the buffer; `more` matches what belongs to it at the beginning of the next piece."""

    start: int
    end: int
    name: str
    more: re.Pattern[bytes] | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What may become a secret; `releasable` while it is so small a part of one that it may be recorded."""

    start: int
    releasable: bool


class Redactor:
    """Redacts what must not be in one execution's events."""

    def __init__(self, secrets: Mapping[str, bytes] | None = None, *, finds_tokens: bool = True) -> None:
        """`secrets` are values by name, of at least `needles.SHORTEST` bytes; tokens have one of the known formats."""
        self._secrets = dict(secrets or {})
        self._finds_tokens = finds_tokens
        self._needles = [
            (needle, bytes([needle[_rarest(needle)]]), name) for needle, name in needles(self._secrets).items()
        ]

    def having(self, secrets: Mapping[str, bytes]) -> "Redactor":
        """Return one that redacts these secrets too."""
        return Redactor({**self._secrets, **secrets}, finds_tokens=self._finds_tokens)

    @property
    def needles(self) -> list[tuple[bytes, str]]:
        """What is looked for: the secrets as they are and in other forms, each with its secret's name."""
        return [(needle, name) for needle, _, name in self._needles]

    def strand(self) -> "Strand":
        """Start a new stream of bytes."""
        return Strand(self)

    def bytes(self, data: bytes) -> bytes:
        """Redact data that is complete."""
        buffer = bytearray(data)
        pieces, _ = Strand(self).take(buffer, len(buffer), last=True)
        return join(buffer, pieces) if any(isinstance(piece, bytes) for piece in pieces) else data

    def text(self, text: str) -> str:
        """Redact a text."""
        data = text.encode("utf-8", "replace")
        clean = self.bytes(data)
        return text if clean is data else clean.decode("utf-8", "replace")

    def value(self, value: object) -> object:
        """Redact every text in a JSON value, except keys."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {key: self.value(member) for key, member in value.items()}
            case list() | tuple():
                return [self.value(member) for member in value]
        return value

    def find(self, buffer: bytearray, end: int, before: int, *, last: bool) -> tuple[list[_Match], list[_Candidate]]:
        """Return all secrets in the buffer, and all tokens that may grow; `before` is the byte before it, or -1."""
        matches: list[_Match] = []
        candidates: list[_Candidate] = []
        for start, one in _PREFIXES.candidates(buffer, end) if self._finds_tokens else ():
            if one.begins_word and _is_word(buffer[start - 1] if start else before):
                continue
            match _token(buffer, end, start, one, last):
                case _Match() as match_:
                    matches.append(match_)
                case _Candidate() as candidate:
                    candidates.append(candidate)
        # After the tokens: of two secrets with the same begin and end, the token counts, because it may continue.
        for needle, byte, name in self._needles:
            if buffer.find(byte, 0, end) >= 0:
                at = buffer.find(needle, 0, end)
                while at >= 0:
                    matches.append(_Match(at, at + len(needle), name))
                    at = buffer.find(needle, at + 1, end)
        return matches, candidates

    def cut_off(self, buffer: bytearray, start: int, end: int) -> list[_Candidate]:
        """Return each needle, and the prefix, that the end of the buffer cuts off, if it begins at `start` or later."""
        cut = [
            _Candidate(at, end - at < len(needle) // 2)
            for needle, _, _ in self._needles
            if (at := _cut_off(needle, buffer, start, end)) is not None
        ]
        if self._finds_tokens and (at := _PREFIXES.cut_off(buffer, start, end)) is not None:
            cut.append(_Candidate(at, releasable=True))
        return cut


def _token(buffer: bytearray, end: int, start: int, one: Format, last: bool) -> _Match | _Candidate | None:
    """Return the token, or what may become one, that begins at `start` with a prefix of this form."""
    whole = one.accepts.match(buffer, start, end)
    grown = one.grows.match(buffer, start, end)
    may_grow = not last and grown is not None and grown.end() == end and end - start < one.cap
    if whole is not None and (one.more is not None or not may_grow):
        return _Match(start, whole.end(), one.name, one.more if whole.end() == end else None)
    if may_grow:
        return _Candidate(start, releasable=whole is None and end - start < one.cap // 2)
    return None


def _cut_off(needle: bytes, buffer: bytearray, start: int, end: int) -> int | None:
    """Return where the needle begins, at `start` or later, if the end of the buffer cuts it off."""
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
    """One stream of bytes. The caller owns the buffer, and moves what is held back to its front."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._more: re.Pattern[bytes] | None = None
        self._before = -1
        self._released = 0
        self.releasable = False
        """True when what is held back may be recorded if nothing follows: see `release`."""

    def take(self, buffer: bytearray, end: int, *, last: bool = False) -> tuple[list[Piece], int]:
        """Search `buffer[:end]`, which begins with what was held back.

        Returns what to record, and the offset from which the buffer is held back.
        """
        cursor, written = 0, self._released
        if self._more is not None and (rest := self._more.match(buffer, 0, end)):
            cursor = written = rest.end()
            if cursor == end:
                self.releasable = False
                return [], end
        self._more = None
        matches, growing = self._redactor.find(buffer, end, self._before, last=last)
        cut = [] if last else self._redactor.cut_off(buffer, cursor, end)
        pieces: list[Piece] = []
        waits = False
        for match_ in sorted(matches, key=lambda match_: (match_.start, -match_.end)):
            if match_.start < cursor:
                continue
            if any(cursor <= candidate.start <= match_.start for candidate in (*growing, *cut)):
                waits = True  # what begins before it must be decided first
                break
            if match_.start > written:
                pieces.append(slice(written, match_.start))
            pieces.append(f"[redacted:{match_.name}]".encode())
            cursor, written, self._more = match_.end, max(written, match_.end), match_.more
            if any(candidate.start < cursor for candidate in cut):  # it began in the secret; another may begin after it
                cut = self._redactor.cut_off(buffer, cursor, end)
        open_candidates = [candidate for candidate in (*growing, *cut) if candidate.start >= cursor]
        keep = min((candidate.start for candidate in open_candidates), default=end)
        if keep > written:
            pieces.append(slice(written, keep))
        self._released = max(0, written - keep)
        may_release = not waits and all(candidate.releasable for candidate in open_candidates)
        self.releasable = may_release and end - keep > self._released
        if keep:
            self._before = buffer[keep - 1]
        return pieces, keep

    def release(self, end: int) -> slice:
        """Return the part of the held back `buffer[:end]` to record now; it stays there, to recognize the rest."""
        start, self._released, self.releasable = self._released, end, False
        return slice(start, end)


class Flow:
    """A stream of bytes that arrives in pieces, with a buffer of its own."""

    def __init__(self, redactor: Redactor) -> None:
        self._strand = redactor.strand()
        self._buffer = bytearray()

    def take(self, data: bytes, *, last: bool = False) -> bytes:
        """Add data; return what may be shown now, and with `last` all the rest."""
        self._buffer += data
        pieces, keep = self._strand.take(self._buffer, len(self._buffer), last=last)
        clean = join(self._buffer, pieces)
        del self._buffer[:keep]
        return clean


class TextFlow:
    """A stream of text that arrives in small pieces."""

    def __init__(self, redactor: Redactor) -> None:
        self._flow = Flow(redactor)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, text: str, *, last: bool = False) -> str:
        """Add text; return what may be recorded now, and with `last` all the rest."""
        return self._decoder.decode(self._flow.take(text.encode("utf-8", "replace"), last=last), last)


def token_in(text: str) -> str | None:
    """Return the name of the format of the first token in a text; None when nothing in it looks like one."""
    data = bytearray(text.encode("utf-8", "replace"))
    matches, _ = Redactor().find(data, len(data), -1, last=True)
    return matches[0].name if matches else None


def join(buffer: bytearray, pieces: list[Piece]) -> bytes:
    """Join the pieces that are to be recorded."""
    return b"".join(bytes(buffer[piece]) if isinstance(piece, slice) else piece for piece in pieces)
