"""The name server inside a sandbox: it says no to every name that is not allowed, and asks nobody.

Programs that know the proxy never ask it. To others it gives the loopback for an allowed name, so that they fail at
once ("connection refused") and not after minutes; and no question leaves the machine, for a name is a message too.
The form of messages: RFC 1035.
"""

import asyncio
import struct
from typing import cast

from services.execution.egress.policy import EgressPolicy

_HEADER = struct.Struct("!6H")
_TYPE_A, _CLASS_IN = 1, 1
_RESPONSE, _RECURSION_AVAILABLE, _RECURSION_DESIRED, _OPERATION = 0x8000, 0x0080, 0x0100, 0x7800
_FORMAT_ERROR, _NO_SUCH_NAME, _NOT_IMPLEMENTED = 1, 3, 4
_LIFE_S = 1
_LOOPBACK = bytes((127, 0, 0, 1))
_QUESTION = 12  # where the name stands: right after the header


class NameServer(asyncio.DatagramProtocol):
    """Answers questions by UDP."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers go by."""
        # Not told by its class: that of Python 3.11 does not say what it is.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""
        reply = answer(data, self._policy)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


def answer(question: bytes, policy: EgressPolicy) -> bytes | None:
    """The answer to a message; None where it is no question."""
    if len(question) < _HEADER.size:
        return None
    number, flags, count, *_ = _HEADER.unpack_from(question)
    if flags & _RESPONSE:
        return None
    common = _RESPONSE | _RECURSION_AVAILABLE | flags & (_RECURSION_DESIRED | _OPERATION)
    asked = _read(question) if count == 1 else None
    if flags & _OPERATION or asked is None:
        code = _NOT_IMPLEMENTED if flags & _OPERATION else _FORMAT_ERROR
        return _HEADER.pack(number, common | code, 0, 0, 0, 0)
    name, kind, end = asked
    copied = question[_HEADER.size : end]
    if not policy.knows(name):
        # Not REFUSED, which has programs ask again and again.
        return _HEADER.pack(number, common | _NO_SUCH_NAME, 1, 0, 0, 0) + copied
    if kind != _TYPE_A:
        return _HEADER.pack(number, common, 1, 0, 0, 0) + copied
    record = struct.pack("!HHHIH", 0xC000 | _QUESTION, _TYPE_A, _CLASS_IN, _LIFE_S, len(_LOOPBACK)) + _LOOPBACK
    return _HEADER.pack(number, common, 1, 1, 0, 0) + copied + record


def _read(message: bytes) -> tuple[str, int, int] | None:
    """Name, type and end of the one question; None where it is not whole."""
    labels: list[str] = []
    offset = _QUESTION
    while True:
        if offset >= len(message):
            return None
        length = message[offset]
        offset += 1
        if length == 0:
            break
        if length > 63 or offset + length > len(message):
            return None
        labels.append(message[offset : offset + length].decode("ascii", "backslashreplace"))
        offset += length
    if offset + 4 > len(message):
        return None
    return ".".join(labels), int.from_bytes(message[offset : offset + 2], "big"), offset + 4
