"""The pool of a database's connections: who waits for one gets it when its caller's turn comes.

SQLAlchemy's own queue serves transactions in their order, so that everybody waits for whoever has begun a hundred
(decision 52). And whoever comes at the moment when a connection is put back takes it from the first that waits.
"""

import asyncio
from collections import deque
from typing import TypeVar

from sqlalchemy import PoolProxiedConnection, exc
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty, Full, QueueCommon

from services.common.db.outages import outage
from services.common.turns import Line, current_turns

Item = TypeVar("Item")


class TurnsQueue(QueueCommon[Item]):
    """The queue of a pool, as SQLAlchemy wants it. What is put back is handed to the next of those who wait."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._items: deque[Item] = deque()
        self._line: Line[asyncio.Future[Item]] = Line()

    def empty(self) -> bool:
        """See QueueCommon."""
        return not self._items

    def full(self) -> bool:
        """See QueueCommon."""
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        """See QueueCommon."""
        return len(self._items)

    def put_nowait(self, item: Item) -> None:
        """Hand the item to whose turn it is, or keep it. Raises Full."""
        while self._line:
            waiter = self._line.pop()
            if not waiter.done():
                waiter.set_result(item)
                return
        if self.full():
            raise Full
        self._items.append(item)

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002 - never blocks
        """See QueueCommon; a pool never waits for room."""
        self.put_nowait(item)

    def get_nowait(self) -> Item:
        """Return what nobody waits for. Raises Empty."""
        if not self._items:
            raise Empty
        return self._items.pop() if self.use_lifo else self._items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Return an item when the turn of the current task's caller comes. Raises Empty after `timeout` seconds."""
        if not block:
            return self.get_nowait()
        item: Item = await_only(self.turn(timeout))
        return item

    async def turn(self, seconds: float | None) -> Item:
        """Do as `get` does, when it may wait."""
        if self._items:
            return self.get_nowait()
        caller, waiter = current_turns(), asyncio.get_running_loop().create_future()
        self._line.add(caller, waiter)
        try:
            async with asyncio.timeout(seconds):
                item: Item = await waiter
                return item
        except BaseException as error:
            self._line.remove(caller, waiter)
            if waiter.done() and not waiter.cancelled():  # handed over in the moment of its cancellation
                self.put_nowait(waiter.result())
            if isinstance(error, TimeoutError):
                raise Empty from None
            raise


class Pool(AsyncAdaptedQueuePool):
    """A pool that raises the error of an outage when all connections stay taken for too long."""

    _queue_class = TurnsQueue[ConnectionPoolEntry]

    def connect(self) -> PoolProxiedConnection:
        """See sqlalchemy.pool.Pool."""
        try:
            return super().connect()
        except exc.TimeoutError as error:
            raise outage() from error
