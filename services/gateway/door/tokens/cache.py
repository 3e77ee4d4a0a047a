"""Caches tokens that were looked up just now, so that not every call of a caller asks the database.

The database is asked one question at a time, about all tokens that have come meanwhile: so a flood of unknown ones
costs it no more than that, and a new token among them is found with the next question (decision 40).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from services.common.batching import Batches
from services.common.home import TOKEN_PREFIX
from services.common.rpc.auth import Credentials
from services.common.rpc.bounds import SHARES, Places, Room
from services.common.rpc.peers import address_of
from services.gateway.door.tokens.store import TokenStore, hash_of
from services.gateway.values.principal import Principal

FRESH_SECONDS = 2.0
"""How long an answer of the database is used; another cell learns of a revocation at most this much later."""

_MAX_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class _Lookup:
    at: float
    answer: "asyncio.Future[Principal | None]"


class CachedTokens:
    """The database's tokens as a `TokenSource`. Calls that ask for one token at the same time share one lookup."""

    def __init__(self, store: TokenStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lookups: OrderedDict[bytes, _Lookup] = OrderedDict()
        self._questions = Batches(self._principals)
        self._valid: OrderedDict[bytes, None] = OrderedDict()
        self._places = Places(Room.LOOKUPS, SHARES[Room.LOOKUPS])

    async def principal(self, token: str, credentials: Credentials) -> Principal | None:
        """Return whom a token stands for, if it is valid.

        Raises Unavailable while the database is away; TooManyCallsError when too many wait for it that have not been
        valid here before.
        """
        if not token.startswith(TOKEN_PREFIX):
            return None
        key = hash_of(token)
        if key in self._valid:
            return await self._looked_up(key)
        with self._places.place(address_of(credentials.peer)):
            return await self._looked_up(key)

    async def _looked_up(self, key: bytes) -> Principal | None:
        now = self._clock()
        lookup = self._lookups.get(key)
        if lookup is None or now - lookup.at > FRESH_SECONDS:
            lookup = self._lookups[key] = _Lookup(now, self._questions.future(key))
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
            return None
        self._valid[key] = None
        self._valid.move_to_end(key)
        if len(self._valid) > _MAX_KNOWN:
            self._valid.popitem(last=False)
        return principal

    def clear(self) -> None:
        """Ask the database again from now on: a token was revoked or made on this cell."""
        self._lookups.clear()

    async def _principals(self, keys: Collection[bytes]) -> Mapping[bytes, Principal]:
        return {key: token.principal for key, token in (await self._store.find_valid(keys)).items()}

    def _drop(self, key: bytes, lookup: _Lookup) -> None:
        if self._lookups.get(key) is lookup:
            del self._lookups[key]
