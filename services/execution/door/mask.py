"""Keeps a provider's keys out of its answers, which the agent reads: some servers say in an error what they were shown.

Each byte of a key becomes an asterisk, so that nothing else of an answer changes, its length neither.
"""

import re
from collections.abc import Iterable
from typing import Final

from services.redaction.needles import needles

SHORTEST: Final = 16
"""The fewest characters of a key that is kept out: the key of a server on the machine itself is often a word."""


class Mask:
    """What is kept out of the answers of one provider."""

    def __init__(self, keys: Iterable[str]) -> None:
        secret = {str(number): key.encode() for number, key in enumerate(keys) if len(key) >= SHORTEST}
        self.needles = tuple(sorted(needles(secret), key=len, reverse=True))
        self.longest = max(map(len, self.needles), default=0)
        self._pattern = re.compile(b"|".join(map(re.escape, self.needles)))

    def masked(self, data: bytes) -> bytes:
        """Return bytes that are complete without the keys in them."""
        if not any(needle in data for needle in self.needles):
            return data
        return self._pattern.sub(lambda found: b"*" * len(found[0]), data)

    def begins_at(self, data: bytes) -> int:
        """Return where a key may begin that the end of `data` cuts off; the length of `data` for nowhere."""
        begin = max(0, len(data) - self.longest + 1)
        tail, first = data[begin:], len(data) - begin
        for needle in self.needles:
            at = tail.find(needle[0], 0, first)
            while at >= 0:
                if needle.startswith(tail[at:]):
                    first = at
                    break
                at = tail.find(needle[0], at + 1, first)
        return begin + first


class MaskedBody:
    """A body without the keys in it, as it comes."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""  # what may be the beginning of a key

    def take(self, data: bytes) -> bytes:
        """Return what can be passed on now: everything, but for what may be the beginning of a key."""
        data = self._mask.masked(self._held + data)
        end = self._mask.begins_at(data)
        self._held = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """Return what is left at the end."""
        return self._held
