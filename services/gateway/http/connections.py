"""HTTP connections that hold nobody up: each has deadlines, and one makes room for a new one.

A connection is of use only while a request on it is answered. So its headers have to come in time, and when there are
too many, the address that has the most gives one up: one that waits for a request before one that is answered, one that
has shown no token before one that has, and the oldest first (decision 40).
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from services.common.rpc.peers import address_of, peer_name

MOST_CONNECTIONS: Final = 256
HEADER_SECONDS: Final = 10.0
"""How long a request's headers may take, from the connection's beginning or from the last answer's end."""
ANSWER_SECONDS: Final = 60.0
"""How long an answer may take, its reader's slowness included. The pages of today are no streams."""
KNOWN: Final = "boatyard_known"
"""The key in a request's state that is True once its caller has shown a token that is known."""


class BoundedConnection(H11Protocol):
    """One connection. Uvicorn closes it besides when nothing at all comes for a while after an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as uvicorn makes it
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._began = self.loop.time()
        self._has_known_caller = False
        self._origin = ""

    @property
    def is_answering(self) -> bool:
        """True while a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def rank(self) -> tuple[str, bool, bool, float]:
        """Its address, and what is compared among the connections of one address: the least has to make room."""
        return self._origin, self.is_answering, self._has_known_caller, self._began

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        others = [each for each in self.connections if isinstance(each, BoundedConnection)]
        if len(others) >= MOST_CONNECTIONS:
            _least_needed(others).end()
        super().connection_made(transport)
        self._origin = "" if self.client is None else address_of(peer_name(*self.client))
        self._end_in(HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        was_answering = self.is_answering
        super().data_received(data)
        if self.is_answering and not was_answering:
            self._end_in(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """Wait for the next request, or answer it where it has come already."""
        self._has_known_caller |= self.scope["state"].get(KNOWN, False)
        super().on_response_complete()
        is_unread = self.transport.get_write_buffer_size() > 0
        self._end_in(ANSWER_SECONDS if self.is_answering or is_unread else HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def end(self) -> None:
        """Close the connection at once, also where nobody reads what was sent."""
        self.connections.discard(self)
        self.transport.abort()

    def _end_in(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.end)


def _least_needed(connections: Sequence[BoundedConnection]) -> BoundedConnection:
    """Return the connection that makes room for another."""
    (greedy, _), *_ = Counter(each.rank[0] for each in connections).most_common(1)
    return min((each for each in connections if each.rank[0] == greedy), key=lambda each: each.rank)
