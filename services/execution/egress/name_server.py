"""The name server inside a sandbox: it rejects every name that is not allowed, and queries no other server.

Programs that use the proxy never ask it. Others get a made-up address for an allowed name, whether or not the name
exists: it is looked up when something connects. No question leaves the machine before that, because a name can carry a
message too. The format of messages is that of RFC 1035.
"""

import asyncio
import struct
from typing import cast

from services.execution.egress.names import MadeUpAddresses
from services.execution.egress.policy import EgressPolicy
from services.sandbox.host_patterns import normalized_host

_HEADER = struct.Struct("!6H")
_TYPE_A, _CLASS_IN = 1, 1
_RESPONSE, _RECURSION_AVAILABLE, _RECURSION_DESIRED, _OPCODE = 0x8000, 0x0080, 0x0100, 0x7800
_FORMAT_ERROR, _NO_SUCH_NAME, _NOT_IMPLEMENTED = 1, 3, 4
_TTL_S = 1
_QUESTION = 12  # offset of the name: right after the header
_MAX_NAME_BYTES = 255


class NameServer(asyncio.DatagramProtocol):
    """Answers questions by UDP."""

    def __init__(self, policy: EgressPolicy, addresses: MadeUpAddresses) -> None:
        self._policy = policy
        self._addresses = addresses
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport that answers are sent by."""
        # Not checked with isinstance: in Python 3.11 its class does not derive from DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question."""
        reply = answer(data, self._policy, self._addresses)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


def answer(message: bytes, policy: EgressPolicy, addresses: MadeUpAddresses) -> bytes | None:
    """Return the answer to a message; None when it is not a question."""
    if len(message) < _HEADER.size:
        return None
    message_id, flags, count, *_ = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        return None
    common = _RESPONSE | _RECURSION_AVAILABLE | flags & (_RECURSION_DESIRED | _OPCODE)
    question = _read_question(message) if count == 1 else None
    if flags & _OPCODE or question is None:
        code = _NOT_IMPLEMENTED if flags & _OPCODE else _FORMAT_ERROR
        return _HEADER.pack(message_id, common | code, 0, 0, 0, 0)
    name, record_type, end = question
    question_section = message[_HEADER.size : end]
    if not policy.allows_name(name):
        # Not REFUSED, which makes programs ask again and again.
        return _HEADER.pack(message_id, common | _NO_SUCH_NAME, 1, 0, 0, 0) + question_section
    if record_type != _TYPE_A:
        return _HEADER.pack(message_id, common, 1, 0, 0, 0) + question_section
    address = addresses.address_of(normalized_host(name)).packed
    record = struct.pack("!HHHIH", 0xC000 | _QUESTION, _TYPE_A, _CLASS_IN, _TTL_S, len(address)) + address
    return _HEADER.pack(message_id, common, 1, 1, 0, 0) + question_section + record


def _read_question(message: bytes) -> tuple[str, int, int] | None:
    """Return name, type and end offset of the one question; None when it is incomplete or too long."""
    labels: list[str] = []
    offset = _QUESTION
    while True:
        if offset >= len(message) or offset > _QUESTION + _MAX_NAME_BYTES:
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
