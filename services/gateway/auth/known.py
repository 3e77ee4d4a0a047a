"""Tokens that were looked up just now, so that a caller of many calls does not ask the database at each."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.common.rpc.auth import Credentials
from services.gateway.auth.model import Access
from services.gateway.auth.store import SECRET_PREFIX, TokenStore, hash_of

FRESH_SECONDS = 2.0
"""How long an answer of the database holds; and so how late, at most, a revocation is known on another cell."""

_MAX_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    found: "asyncio.Task[Access | None]"


class StoredTokens:
    """Knows the tokens of the database; see `authenticator.Knows`. Those who ask for one at once share one look."""

    def __init__(self, store: TokenStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._looks: OrderedDict[bytes, _Look] = OrderedDict()
        self._opened: OrderedDict[bytes, None] = OrderedDict()

    def is_at_hand(self, token: str) -> bool:
        """See Knows: it is none of these tokens, or has opened here, and not failed since."""
        return not token.startswith(SECRET_PREFIX) or hash_of(token) in self._opened

    async def access(self, token: str, shown: Credentials) -> Access | None:  # noqa: ARG002 - it knows a token by itself
        """See Knows. Raises Unavailable while the database is away."""
        if not token.startswith(SECRET_PREFIX):
            return None
        key, now = hash_of(token), self._clock()
        look = self._looks.get(key)
        if look is None or now - look.at > FRESH_SECONDS:
            look = self._looks[key] = _Look(now, asyncio.create_task(self._look(token)))
            self._looks.move_to_end(key)
            if len(self._looks) > _MAX_KNOWN:
                self._looks.popitem(last=False)
        try:
            # Shielded: one caller that leaves takes the answer from nobody.
            access = await asyncio.shield(look.found)
        except Exception:
            self._drop(key, look)
            raise
        if access is None:  # whoever tries tokens fills nothing
            self._drop(key, look)
            self._opened.pop(key, None)
        else:
            self._opened[key] = None
            self._opened.move_to_end(key)
            if len(self._opened) > _MAX_KNOWN:
                self._opened.popitem(last=False)
        return access

    def forget(self) -> None:
        """Ask the database again from now on: a token was revoked here, or made."""
        self._looks.clear()

    async def _look(self, token: str) -> Access | None:
        found = await self._store.shown(token)
        return None if found is None else found.access

    def _drop(self, key: bytes, look: _Look) -> None:
        if self._looks.get(key) is look:
            del self._looks[key]
