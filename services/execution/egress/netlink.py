"""Netlink, by which programs configure the kernel's network (netlink(7)): as much of it as a sandbox needs."""

import errno
import os
import socket
import struct
from collections.abc import Iterator

ROUTE, NETFILTER = socket.NETLINK_ROUTE, 12
CREATE = 0x400
"""The flag of a request that makes something."""

_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_NESTED = 0x8000
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_BYTES = 1 << 16
_ANSWER_WITHIN_S = 10.0


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def message(kind: int, body: bytes, flags: int = 0, *, acknowledged: bool = True) -> bytes:
    """Return a request. One that is not acknowledged only stands between others, and cannot fail by itself."""
    flags |= _REQUEST | (_ACK if acknowledged else 0)
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def call(protocol: int, *messages: bytes) -> None:
    """Send requests as one datagram, and wait for their acknowledgements. Raises OSError for the first that failed."""
    awaited = sum(bool(_HEADER.unpack_from(one)[2] & _ACK) for one in messages)
    with _connection(protocol) as connection:
        connection.send(b"".join(messages))
        while awaited:
            for kind, body in _answers(connection.recv(_ANSWER_BYTES)):
                if kind == _ERROR:
                    _check(body)
                    awaited -= 1


def dump(protocol: int, kind: int, body: bytes) -> Iterator[bytes]:
    """Yield all that the kernel has of a kind, each without its header. Raises OSError."""
    request = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 0, 0) + body
    with _connection(protocol) as connection:
        connection.send(request)
        while True:
            for answer, one in _answers(connection.recv(_ANSWER_BYTES)):
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    _check(one)
                yield one


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the values of a sequence of attributes, by kind."""
    found, offset = {}, 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        found[kind] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += max(length + -length % 4, _ATTRIBUTE.size)
    return found


def _connection(protocol: int) -> socket.socket:
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    connection.settimeout(_ANSWER_WITHIN_S)
    connection.connect((0, 0))
    return connection


def _answers(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, offset)
        yield kind, datagram[offset + _HEADER.size : offset + length]
        offset += max(length + -length % 4, _HEADER.size)


def _check(error: bytes) -> None:
    code = -struct.unpack_from("=i", error)[0]
    if code:
        raise OSError(code, os.strerror(code) if code in errno.errorcode else f"netlink error {code}")
