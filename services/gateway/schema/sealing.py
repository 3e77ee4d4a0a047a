"""Encrypts what is secret in the database: columns of the types below hold it sealed, and give it in the clear.

A sealed text is `sealed:<key id>:<base64 of nonce and ciphertext>`, by AES-256-GCM, bound to its table and column. Each
engine has the key ring of its database: `use_keys(engine, ring)`. What versions before wrote is in the clear, and read
as it is until `gateway.keys` has sealed it.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Final
from weakref import WeakKeyDictionary

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Dialect, Text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeDecorator

KEY_BYTES: Final = 32
_PREFIX: Final = "sealed:"
_NONCE_BYTES: Final = 12


class SealError(Exception):
    """A sealed text cannot be opened: its key is not here, or it was changed."""


class KeyRing:
    """The keys of one database, each of 32 random bytes. Texts are sealed with `current`, and opened with any."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        """The first of the keys is the current one."""
        self._ciphers: dict[str, AESGCM] = {}
        for key in keys:
            self.add(key)
        self.current = next(iter(self._ciphers), "")

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of all keys."""
        return frozenset(self._ciphers)

    def add(self, key: bytes) -> None:
        """Add a key."""
        self._ciphers[id_of(key)] = AESGCM(key)

    def seal(self, text: str, place: str) -> str:
        """Seal a text for a place, such as a column, with the current key."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.current].encrypt(nonce, text.encode(), place.encode())
        return f"{prefix_of(self.current)}{base64.b64encode(nonce + sealed).decode()}"

    def open(self, stored: str, place: str) -> str:
        """Return the text of a sealed one, and one that is not sealed as it is. Raises SealError."""
        if not stored.startswith(_PREFIX):
            return stored
        key_id, _, encoded = stored.removeprefix(_PREFIX).partition(":")
        if key_id not in self._ciphers:
            raise SealError(f"{place} is sealed with the key {key_id}, which this cell does not have")
        data = base64.b64decode(encoded)
        try:
            return self._ciphers[key_id].decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], place.encode()).decode()
        except InvalidTag:
            raise SealError(f"{place} was changed since it was sealed with the key {key_id}") from None


def id_of(key: bytes) -> str:
    """Return the id of a key, which tells nothing of it. Raises ValueError for one of the wrong length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return hashlib.sha256(b"boatyard key\0" + key).hexdigest()[:16]


def prefix_of(key_id: str) -> str:
    """Return how every text begins that is sealed with a key."""
    return f"{_PREFIX}{key_id}:"


_RINGS: Final[WeakKeyDictionary[Dialect, KeyRing]] = WeakKeyDictionary()
"""The key rings, by the one thing of its engine that a column's type is given."""


def use_keys(engine: AsyncEngine, ring: KeyRing) -> None:
    """Seal and open an engine's columns with these keys."""
    _RINGS[engine.dialect] = ring


class SealedText(TypeDecorator[str]):
    """A secret text. An empty one is stored as it is: it says that there is none."""

    impl = Text
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return a text sealed."""
        return _RINGS[dialect].seal(value, self.place) if value else value

    def process_result_value(self, value: str | None, dialect: Dialect) -> str:
        """Return a sealed text in the clear. Raises SealError."""
        return _RINGS[dialect].open(value, self.place) if value else ""


class SealedSecrets(TypeDecorator[Mapping[str, str]]):
    """Secrets by name, sealed as a whole; none are stored as an empty text."""

    impl = Text
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: Mapping[str, str] | None, dialect: Dialect) -> str:
        """Return secrets sealed."""
        return _RINGS[dialect].seal(json.dumps(dict(value)), self.place) if value else ""

    def process_result_value(self, value: str | None, dialect: Dialect) -> Mapping[str, str]:
        """Return sealed secrets in the clear. Raises SealError."""
        secrets: dict[str, str] = json.loads(_RINGS[dialect].open(value, self.place)) if value else {}
        return secrets


class SealedTexts(TypeDecorator[tuple[str, ...]]):
    """Secret texts, sealed together; none are stored as an empty text."""

    impl = Text
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str:
        """Return texts sealed."""
        return _RINGS[dialect].seal(json.dumps(value), self.place) if value else ""

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...]:
        """Return sealed texts in the clear. Raises SealError."""
        return tuple(json.loads(_RINGS[dialect].open(value, self.place))) if value else ()
