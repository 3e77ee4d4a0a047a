"""HTTP/1.1, as strictly as it must be read by whoever stands between two others.

What the two ends could understand differently (RFC 9112, 11.2) is refused: two lengths, a length beside chunks, a
transfer coding other than `chunked`, lines that are folded or end in a bare LF.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 64 * 1024
"""The most that a head may have, and the trailer of a chunked body."""
CHUNK: Final = 64 * 1024
"""The most that is read or passed on at once."""

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in their order; names are in lower case."""

_END = b"\r\n\r\n"
_REQUEST = re.compile(rb"([A-Z]{1,32}) (/[!-~]*) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\r\n]*))?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_OF_ONE_CONNECTION: Final = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"),
    *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length"),
}


class MessageError(Exception):
    """What arrived is no message that we pass on; `status` is what a client is told."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Body:
    """How a body ends: after `length` bytes, with its last chunk, or (neither) with its connection."""

    length: int | None = None
    is_chunked: bool = False


NO_BODY: Final = Body(0)


@dataclass(frozen=True, slots=True)
class Message:
    """What the heads of requests and answers have in common. `minor` is the 1 of HTTP/1.1."""

    minor: int
    fields: Fields

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field, in their order."""
        return [value for key, value in self.fields if key == name]

    def value(self, name: bytes) -> bytes:
        """Return the only value of a field, or its last one; empty when there is none."""
        values = self.values(name)
        return values[-1] if values else b""

    def tokens(self, name: bytes) -> set[bytes]:
        """Return the words of a list such as that of `Connection`, in lower case."""
        return {word.strip().lower() for value in self.values(name) for word in value.split(b",")}

    def end_to_end(self, without: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
        """Return the fields that are for the other end, but for those of the names `without`."""
        left_out = {*_OF_ONE_CONNECTION, *self.tokens(b"connection"), *without}
        return [(name, value) for name, value in self.fields if name not in left_out]

    @property
    def keeps_alive(self) -> bool:
        """True when the connection is to be used again."""
        tokens = self.tokens(b"connection")
        return b"close" not in tokens and (self.minor > 0 or b"keep-alive" in tokens)

    def _body(self) -> Body | None:
        """Return the body that the fields describe; None when they describe none. Raises MessageError."""
        coding, lengths = self.values(b"transfer-encoding"), self.values(b"content-length")
        if coding:
            if lengths or [value.lower() for value in coding] != [b"chunked"] or self.minor == 0:
                raise MessageError("a body is either chunked or has a length, and no other coding is understood")
            return Body(is_chunked=True)
        if not lengths:
            return None
        if len(lengths) > 1 or not re.fullmatch(rb"\d{1,15}", lengths[0]):
            raise MessageError("there must be one Content-Length, of digits")
        return Body(int(lengths[0]))


@dataclass(frozen=True, slots=True)
class Request(Message):
    """The head of a request; `path` is without the query, which begins with its question mark."""

    method: str
    path: str
    query: str

    @classmethod
    def parse(cls, head: bytes) -> "Request":
        """Parse a head with its empty line. Raises MessageError."""
        first, fields = _parsed(head)
        match = _REQUEST.fullmatch(first)
        if match is None:
            raise MessageError("this is no request of HTTP/1.1 for a path")
        path, mark, query = match[2].decode().partition("?")
        return cls(int(match[3]), fields, match[1].decode(), path, mark + query)

    def body(self) -> Body:
        """Return how the body ends. Raises MessageError."""
        return self._body() or NO_BODY


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """The head of an answer."""

    status: int
    phrase: bytes

    @classmethod
    def parse(cls, head: bytes) -> "Answer":
        """Parse a head with its empty line. Raises MessageError."""
        first, fields = _parsed(head)
        match = _STATUS.fullmatch(first)
        if match is None:
            raise MessageError("this is no answer of HTTP/1.1")
        return cls(int(match[1]), fields, int(match[2]), match[3] or b"")

    def body(self, method: str) -> Body:
        """Return how the body ends of an answer to a request. Raises MessageError."""
        if method == "HEAD" or self.status in (204, 304):
            return NO_BODY
        return self._body() or Body()


def _parsed(head: bytes) -> tuple[bytes, Fields]:
    first, *lines = head.removesuffix(_END).split(b"\r\n")
    fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise MessageError("a header field is malformed")
        fields.append((match[1].lower(), match[2]))
    return first, tuple(fields)


def written(first: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a head."""
    return b"\r\n".join((first, *(name + b": " + value for name, value in fields), b"", b""))


class Stream:
    """One end of a connection, from which one may read ahead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._ahead = b""

    async def read(self) -> bytes:
        """Return the next bytes, at most CHUNK; empty at the end. Raises OSError."""
        if self._ahead:
            data, self._ahead = self._ahead[:CHUNK], self._ahead[CHUNK:]
            return data
        return await self._reader.read(CHUNK)

    async def head(self) -> bytes:
        """Return the next head with its empty line; empty when there is none. Raises MessageError, OSError."""
        data = b""
        while True:
            more = await self.read()
            data += more
            if data[:2] == b"\r\n":  # RFC 9112, 2.2: some clients end their bodies so
                data = data[2:]
            end = data.find(_END, max(0, len(data) - len(more) - 3))
            if end >= 0:
                end += len(_END)
            if end > HEAD_BYTES or (end < 0 and len(data) > HEAD_BYTES):
                raise MessageError(f"the head has more than {HEAD_BYTES >> 10} KiB", 431)
            if end >= 0:
                self._ahead = data[end:] + self._ahead
                return data[:end]
            if not more:
                if data:
                    raise MessageError("the connection ended within a head")
                return b""

    async def pieces(self, body: Body) -> AsyncIterator[bytes]:
        """Yield what a body consists of, as it comes. Raises MessageError, OSError."""
        chunks = Chunks() if body.is_chunked else None
        left = body.length
        while left != 0 if chunks is None else not chunks.ended:
            data = await self.read()
            if not data:
                if left is None and chunks is None:
                    return
                raise MessageError("the connection ended within a body")
            if chunks is not None:
                data, rest = chunks.take(data)
            elif left is not None:
                data, rest = data[:left], data[left:]
                left -= len(data)
            else:
                rest = b""
            if rest:
                self._ahead = rest + self._ahead
            if data:
                yield data

    async def peek(self, body: Body) -> bytes:
        """Return the beginning of a body, as far as it comes within CHUNK, and leave it to be read.

        Raises MessageError, OSError.
        """
        raw, data, is_whole = b"", b"", body.length == 0
        try:
            while not is_whole and len(raw) < CHUNK and (more := await self.read()):
                raw += more
                chunks = Chunks()
                data = chunks.take(raw)[0] if body.is_chunked else raw[: body.length]
                is_whole = chunks.ended or len(data) == body.length
        finally:
            self._ahead = raw + self._ahead
        return data

    async def ended(self) -> None:
        """Wait for the end of what the other end sends; what it sends before is kept, up to CHUNK. Raises OSError."""
        while data := await self._reader.read(CHUNK):
            self._ahead += data
            if len(self._ahead) > CHUNK:
                await asyncio.Event().wait()  # it will be found gone when it is written to

    async def is_quiet(self) -> bool:
        """Tell whether nothing has come that was not read, nor an end."""
        if self._ahead or self.writer.is_closing():
            return False
        reading = asyncio.ensure_future(self._reader.read(1))
        await asyncio.sleep(0)
        if is_quiet := not reading.done():
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return is_quiet

    async def write(self, data: bytes) -> None:
        """Write, and wait while too much is unsent. Raises OSError."""
        self.writer.write(data)
        if self.writer.transport.get_write_buffer_size() or self.writer.is_closing():
            await self.writer.drain()


class Chunks:
    """Takes a chunked body apart."""

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # of the current chunk
        self._line = b""
        self._after_data = False
        self._trailer: int | None = None  # its size so far

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the body's bytes within `data`, and what follows the body, if that has ended. Raises MessageError."""
        parts: list[bytes] = []
        while data and not self.ended:
            if self._left:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                self._after_data = not self._left
                parts.append(part)
                continue
            line, found, data = data.partition(b"\n")
            self._line += line + found
            if len(self._line) > HEAD_BYTES:
                raise MessageError("a line between chunks is too long")
            if found:
                line, self._line = self._line, b""
                self._take_line(line)
        return b"".join(parts), data

    def _take_line(self, line: bytes) -> None:
        text = line.removesuffix(b"\r\n")
        if text == line:
            raise MessageError("a line between chunks ends in a bare LF")
        if self._trailer is not None:
            self._trailer += len(line)
            if self._trailer > HEAD_BYTES:
                raise MessageError("the trailer is too long")
            self.ended = not text
        elif self._after_data:
            if text:
                raise MessageError("a chunk is longer than its size")
            self._after_data = False
        else:
            size = _SIZE.fullmatch(text)
            if size is None:
                raise MessageError("the size of a chunk is malformed")
            self._left = int(size[1], 16)
            if not self._left:
                self._trailer = 0
