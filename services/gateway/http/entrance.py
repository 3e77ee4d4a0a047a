"""How HTTP connections come in: at a pace, addresses in turn, and with a deadline for TLS.

A connection costs something before its first request can be judged: TLS most of all, about a millisecond of the one
thread. So each waits for its turn as a bare socket, and too many are closed as such, which costs next to nothing. It is
one of the address that has the most of them, chosen by chance: the oldest would be that of a caller whose turn is next,
and the newest would be everybody else's while somebody holds the others open (decision 40).
"""

import asyncio
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog

from services.common.rpc.peers import address_of, peer_name
from services.common.turns import Pace

MOST_WAITING: Final = 256
"""How many connections may wait for their turn, or be in their TLS handshake."""
CONNECTIONS_PER_SECOND: Final = 100
CONNECTIONS_AT_ONCE: Final = 100
HANDSHAKE_SECONDS: Final = 10.0
"""How long a TLS handshake may take, from its turn."""

_ACCEPTED_AT_ONCE: Final = 16
_PAUSE_SECONDS: Final = 1.0

log = structlog.get_logger()


class Entrance:
    """Lets connections in that come to a listening socket; each then has a protocol of `begin`."""

    def __init__(
        self, listener: socket.socket, begin: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        self._listener = listener
        self._begin = begin
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(CONNECTIONS_PER_SECOND, CONNECTIONS_AT_ONCE)
        self._waiting: dict[asyncio.Task[None], str] = {}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let connections in inside of the block; at its end those that wait are closed, and so is the listener."""
        self._listener.setblocking(False)
        self._listen()
        try:
            yield
        finally:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            for task in self._waiting:
                task.cancel()

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("cannot accept connections", error=error.strerror)  # too many open files
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_PAUSE_SECONDS, self._listen)
                return
            connection.setblocking(False)
            self._wait(connection, address_of(peer_name(*address[:2])))

    def _wait(self, connection: socket.socket, origin: str) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._close_one()
        task = self._loop.create_task(self._let_in(connection, origin))
        self._waiting[task] = origin
        task.add_done_callback(partial(self._settle, connection))

    async def _let_in(self, connection: socket.socket, origin: str) -> None:
        await self._pace.turn(origin)
        timeout = None if self._tls is None else HANDSHAKE_SECONDS
        await self._loop.connect_accepted_socket(self._begin, connection, ssl=self._tls, ssl_handshake_timeout=timeout)

    def _settle(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        """Forget a connection that waits no longer; close it unless it was let in."""
        self._waiting.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            connection.close()
        if error is not None and not isinstance(error, OSError):
            log.error("unexpected error", exc_info=error)

    def _close_one(self) -> None:
        (greedy, _), *_ = Counter(self._waiting.values()).most_common(1)
        theirs = [task for task, origin in self._waiting.items() if origin == greedy]
        chosen = random.choice(theirs)  # noqa: S311 - nothing is secret about it
        del self._waiting[chosen]
        chosen.cancel()
