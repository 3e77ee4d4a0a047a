"""Values that are stored: `dump` writes one as JSON, and `load` reads it again.

`pack` and `unpack` do the same for values that are sent, compressed, because a prompt in JSON may exceed a message.
"""

import zlib
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter


class Recorded:
    """JSON has no bytes: they are base64 there."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    __slots__ = ()


Value = TypeVar("Value", bound=Recorded)

_MAX_TEXT_BYTES = 64 << 20
"""Far more than any value needs: it bounds the work of unpacking what somebody sends."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a class of this module
    return TypeAdapter(kind)


def dump(value: Recorded) -> str:
    """Write a value as JSON, in ASCII (a database may refuse what Unicode allows)."""
    kind: Any = type(value)
    text: str = _adapter(kind).dump_json(value, ensure_ascii=True).decode()
    return text


def load(kind: type[Value], text: str) -> Value:
    """Read what `dump` wrote. Unknown fields are skipped, and missing ones have their defaults."""
    known: Any = kind
    value: Value = _adapter(known).validate_json(text)
    return value


def pack(value: Recorded) -> bytes:
    """Write a value as compressed bytes."""
    return zlib.compress(dump(value).encode())


def unpack(kind: type[Value], data: bytes) -> Value:
    """Read what `pack` wrote. Raises ValueError for anything else."""
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(data, _MAX_TEXT_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacking.eof:
        raise ValueError("it is cut short, or too large")
    return load(kind, text.decode())
