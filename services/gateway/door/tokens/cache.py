"""Caches tokens that were looked up just now, so that not every call of a caller asks the database."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.common.home import TOKEN_PREFIX
from services.common.rpc.auth import Credentials
from services.gateway.door.tokens.store import TokenStore, hash_of
from services.gateway.values.principal import Principal

FRESH_SECONDS = 2.0
"""How long an answer of the database is used; another cell learns of a revocation at most this much later."""

_MAX_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class _Lookup:
    at: float
    answer: "asyncio.Task[Principal | None]"


class CachedTokens:
    """The database's tokens as a `TokenSource`. Calls that ask for one token at the same time share one lookup."""

    def __init__(self, store: TokenStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lookups: OrderedDict[bytes, _Lookup] = OrderedDict()
        self._valid: OrderedDict[bytes, None] = OrderedDict()

    def is_at_hand(self, token: str) -> bool:
        """True when the token is not of this kind, or has been valid here and has not failed since."""
        return not token.startswith(TOKEN_PREFIX) or hash_of(token) in self._valid

    async def principal(self, token: str, credentials: Credentials) -> Principal | None:  # noqa: ARG002 - the token is enough
        """Return whom a token stands for, if it is valid. Raises Unavailable while the database is away."""
        if not token.startswith(TOKEN_PREFIX):
            return None
        key, now = hash_of(token), self._clock()
        lookup = self._lookups.get(key)
        if lookup is None or now - lookup.at > FRESH_SECONDS:
            lookup = self._lookups[key] = _Lookup(now, asyncio.create_task(self._look_up(token)))
            self._lookups.move_to_end(key)
            if len(self._lookups) > _MAX_KNOWN:
                self._lookups.popitem(last=False)
        try:
            # Shielded: a caller that is cancelled must not cancel the lookup that others wait for.
            principal = await asyncio.shield(lookup.answer)
        except Exception:
            self._drop(key, lookup)
            raise
        if principal is None:  # guessed tokens must not fill the cache
            self._drop(key, lookup)
            self._valid.pop(key, None)
        else:
            self._valid[key] = None
            self._valid.move_to_end(key)
            if len(self._valid) > _MAX_KNOWN:
                self._valid.popitem(last=False)
        return principal

    def clear(self) -> None:
        """Ask the database again from now on: a token was revoked or made on this cell."""
        self._lookups.clear()

    async def _look_up(self, token: str) -> Principal | None:
        stored = await self._store.find_valid(token)
        return None if stored is None else stored.principal

    def _drop(self, key: bytes, lookup: _Lookup) -> None:
        if self._lookups.get(key) is lookup:
            del self._lookups[key]
