"""An execution's events, passed on from the cell that has them.

Nothing is kept here: one batch is in hand at a time, and the next is asked for when the viewer has taken it. When the
cell's execution service, or its gateway, goes away, it is asked again from the next sequence, so a viewer sees neither
gap nor doubling.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

from services.common.errors import OutOfRange, Unavailable
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.watching import HEARTBEAT_SECONDS, looks
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.routing.cell_client import CellClient, CellUnreachable, EventBatch, EventKinds
from services.gateway.routing.router import CellRouter
from services.gateway.values.jobs import ExecutionView
from services.lifecycle.model.states import ExecutionState

_PATIENCE_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.3
_LOST: Final = "NODE_LOST"

_NO_EVENTS: Final = EventBatch((), is_last=False)

Condition = Callable[[ExecutionView], bool]


@dataclass(frozen=True, slots=True)
class ExecutionUpdate:
    """Some events; or the end of the execution; or neither: a heartbeat."""

    events: EventBatch = _NO_EVENTS
    end: ExecutionView | None = None


class Relay:
    """Reads the events of executions from the cells that have them."""

    def __init__(self, store: JobStore, notifier: JobNotifier, router: CellRouter) -> None:
        self._store = store
        self._notifier = notifier
        self._router = router

    async def batches(
        self, execution_id: str, first: int, *, follow: bool, kinds: EventKinds = ()
    ) -> AsyncGenerator[ExecutionUpdate, None]:
        """Yield events from the sequence `first` on, of some kinds or all; with `follow` the end too.

        Raises NotFound, OutOfRange (EVENTS_OUT_OF_RANGE), Unavailable (CELL_UNAVAILABLE), and what gRPC says of a node
        that stays away.
        """
        view = await self._store.execution(execution_id)
        if not _has_begun(view):
            if not follow:
                return
            async with aclosing(self._until(view, _has_begun)) as beginnings:
                async for beginning in beginnings:
                    view = beginning or view
                    yield ExecutionUpdate()
        if view.state.is_final and view.start_time is None:  # it never began, so there are no events
            if first > 1:
                raise OutOfRange(1, 1, reason="EVENTS_OUT_OF_RANGE")
            if follow:
                yield ExecutionUpdate(end=view)
            return
        async with aclosing(self._events(view, first, follow=follow, kinds=kinds)) as batches:
            async for batch in batches:
                yield batch
        if follow:
            # The node knows of the end; here it is known when the driver has written it down.
            async with aclosing(self._until(view, lambda current: current.state.is_final)) as ends:
                async for ended in ends:
                    yield ExecutionUpdate(end=ended)

    async def _until(self, view: ExecutionView, done: Condition) -> AsyncGenerator[ExecutionView | None, None]:
        """Yield heartbeats, and last the execution when it is as wanted."""

        async def look() -> ExecutionView | None:
            current = await self._store.execution(view.execution_id)
            return current if done(current) else None

        async with aclosing(looks(self._notifier, view.job_id, look)) as currents:
            async for current in currents:
                yield current
                if current is not None:
                    return

    async def _events(
        self, view: ExecutionView, first: int, *, follow: bool, kinds: EventKinds
    ) -> AsyncGenerator[ExecutionUpdate, None]:
        position, seen = first, time.monotonic()
        while True:
            try:
                client = await self._client_of(view, patient=follow)
                async with aclosing(client.events(view.execution_id, position, follow=follow, kinds=kinds)) as batches:
                    async for events in batches:
                        position = events.next_sequence or position
                        if events.events or not events.is_last:
                            yield ExecutionUpdate(events)
                        seen = time.monotonic()
                        if events.is_last:
                            return
            except CellUnreachable as away:
                if await self._is_given_up(view, away, seen, follow=follow):
                    return
            else:
                if not follow:
                    return
            if time.monotonic() - seen > HEARTBEAT_SECONDS:
                yield ExecutionUpdate()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _client_of(self, view: ExecutionView, *, patient: bool) -> CellClient:
        try:
            return await self._router.of_cell(view.cell_id)
        except Unavailable as error:
            if not patient:
                raise
            raise CellUnreachable(error) from error

    async def _is_given_up(self, view: ExecutionView, away: CellUnreachable, seen: float, *, follow: bool) -> bool:
        """Whether a followed execution has ended with its cell, and nobody can say more of it.

        Raises why it cannot be seen when that has been so for too long.
        """
        if follow:
            with suppress(Unavailable):
                current = await self._store.execution(view.execution_id)
                if current.state.is_final and current.reason == _LOST:
                    return True
        if time.monotonic() - seen > _PATIENCE_SECONDS:
            raise away.cause from away
        return False


def _has_begun(view: ExecutionView) -> bool:
    return view.state is not ExecutionState.PENDING
