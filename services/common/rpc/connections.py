"""The connections of a server's TCP port, bounded by address until their caller is known, and then by caller.

gRPC asks nobody before it accepts a connection, and has one bound for all addresses together, by which anybody could
keep everybody out. So the server looks at its own sockets once a second and ends the connections that are too many: the
oldest of those on which nobody has shown a known token, since who has one shows it with the first call (decision 40).
"""

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import structlog

from services.common.rpc.peers import address_of, peer_name

LOOK_SECONDS: Final = 1.0
STRANGERS_OF_AN_ADDRESS: Final = 64
STRANGERS: Final = 1024
"""How many connections may be open on which nobody has shown a known token, of one address and in all."""
OF_A_CALLER: Final = 256
"""How many connections a known caller may have open."""

log = structlog.get_logger()


class Connections:
    """The connections of one server, which listens at a port of this process."""

    def __init__(self) -> None:
        self._callers: dict[str, str | None] = {}
        self._oldest_first: dict[str, None] = {}

    def note(self, peer: str, caller: str | None) -> None:
        """Remember who called on a connection; `peer` is gRPC's name of its other end."""
        self._callers[peer] = caller

    async def watch(self, port: int) -> None:
        """End what is too many, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look(port)

    def look(self, port: int) -> None:
        """End the connections that are too many now."""
        descriptors = dict(_accepted(port))
        self._callers = {peer: caller for peer, caller in self._callers.items() if unquote(peer) in descriptors}
        known = {unquote(peer): caller for peer, caller in self._callers.items()}
        old = {peer: None for peer in self._oldest_first if peer in descriptors}
        self._oldest_first = {**old, **dict.fromkeys(descriptors)}
        ended = list(_too_many(list(self._oldest_first), known))
        for peer in ended:
            _end(descriptors[peer], port, peer)
        if ended:
            log.warning("ended connections that were too many", ended=len(ended), open=len(descriptors))


def _too_many(peers: Sequence[str], callers: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the connections to end, of `peers` with the oldest first; those of `callers` are known callers'."""
    strangers = [peer for peer in peers if peer not in callers]
    too_many_strangers = len(strangers) - STRANGERS
    of_an_address = Counter(map(address_of, strangers))
    for peer in strangers:
        address = address_of(peer)
        if of_an_address[address] > STRANGERS_OF_AN_ADDRESS or too_many_strangers > 0:
            of_an_address[address] -= 1
            too_many_strangers -= 1
            yield peer
    of_a_caller = Counter(callers.values())
    for peer in peers:
        caller = callers.get(peer)
        if caller is not None and of_a_caller[caller] > OF_A_CALLER:
            of_a_caller[caller] -= 1
            yield peer


def _accepted(port: int) -> Iterator[tuple[str, int]]:
    """Yield the connections that came to `port` of this process: the other end's name, and the descriptor."""
    for descriptor in _descriptors():
        peer = _peer_of(descriptor, port)
        if peer is not None:
            yield peer, descriptor


def _descriptors() -> Iterable[int]:
    try:
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:  # as many are open as may be, so that one cannot even look
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _peer_of(descriptor: int, port: int) -> str | None:
    """Return the other end of a connection that came to `port`; None for whatever else a descriptor is."""
    try:
        # Not a duplicate: to close one of a database's file would release the locks that this process has on it.
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        if connection.family not in {socket.AF_INET, socket.AF_INET6} or connection.getsockname()[1] != port:
            return None
        return peer_name(*connection.getpeername()[:2])
    except OSError:
        return None
    finally:
        connection.detach()


def _end(descriptor: int, port: int, peer: str) -> None:
    """Shut a connection down, unless its descriptor is another's by now; gRPC then closes it."""
    if _peer_of(descriptor, port) != peer:
        return
    with suppress(OSError):  # gRPC has closed it since, in a thread of its own
        connection = socket.socket(fileno=descriptor)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()
