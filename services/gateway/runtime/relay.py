"""Passes on an execution's events from the cell that has them.

The relay holds one batch at a time, and asks for the next when the viewer has taken it. When the cell's execution
service, or its gateway, goes away, the relay asks it again from the next sequence, so that a viewer sees neither gaps
nor duplicates.
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
_NODE_LOST: Final = "NODE_LOST"

_NO_EVENTS: Final = EventBatch((), is_last=False)

Condition = Callable[[ExecutionView], bool]


@dataclass(frozen=True, slots=True)
class ExecutionUpdate:
    """Some events, or the end of the execution; a heartbeat has neither."""

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
        """Yield events from the sequence `first` on, of some kinds or all; with `follow` also the execution's end.

        Raises NotFound, OutOfRange (EVENTS_OUT_OF_RANGE), Unavailable (CELL_UNAVAILABLE), and gRPC's error for a node
        that stays away.
        """
        view = await self._store.execution(execution_id)
        if not _has_begun(view):
            if not follow:
                return
            async with aclosing(self._until(view, _has_begun)) as updates:
                async for update in updates:
                    view = update or view
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
            # The node already knows of the end; the gateway does when the driver has recorded it.
            async with aclosing(self._until(view, lambda current: current.state.is_final)) as updates:
                async for ended in updates:
                    yield ExecutionUpdate(end=ended)

    async def _until(self, view: ExecutionView, condition: Condition) -> AsyncGenerator[ExecutionView | None, None]:
        """Yield None as heartbeats, and finally the execution, once it meets the condition."""

        async def look() -> ExecutionView | None:
            current = await self._store.execution(view.execution_id)
            return current if condition(current) else None

        async with aclosing(looks(self._notifier, view.job_id, look)) as updates:
            async for current in updates:
                yield current
                if current is not None:
                    return

    async def _events(
        self, view: ExecutionView, first: int, *, follow: bool, kinds: EventKinds
    ) -> AsyncGenerator[ExecutionUpdate, None]:
        position, last_contact = first, time.monotonic()
        while True:
            try:
                client = await self._client_of(view, patient=follow)
                async with aclosing(client.events(view.execution_id, position, follow=follow, kinds=kinds)) as batches:
                    async for events in batches:
                        position = events.next_sequence or position
                        if events.events or not events.is_last:
                            yield ExecutionUpdate(events)
                        last_contact = time.monotonic()
                        if events.is_last:
                            return
            except CellUnreachable as unreachable:
                if await self._is_given_up(view, unreachable, last_contact, follow=follow):
                    return
            else:
                if not follow:
                    return
            if time.monotonic() - last_contact > HEARTBEAT_SECONDS:
                yield ExecutionUpdate()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _client_of(self, view: ExecutionView, *, patient: bool) -> CellClient:
        try:
            return await self._router.of_cell(view.cell_id)
        except Unavailable as error:
            if not patient:
                raise
            raise CellUnreachable(error) from error

    async def _is_given_up(
        self, view: ExecutionView, unreachable: CellUnreachable, last_contact: float, *, follow: bool
    ) -> bool:
        """True when a followed execution was lost with its cell, so that no more events can come.

        Raises the cause of `unreachable` once the cell has not been reached for too long.
        """
        if follow:
            with suppress(Unavailable):
                current = await self._store.execution(view.execution_id)
                if current.state.is_final and current.reason == _NODE_LOST:
                    return True
        if time.monotonic() - last_contact > _PATIENCE_SECONDS:
            raise unreachable.cause from unreachable
        return False


def _has_begun(view: ExecutionView) -> bool:
    return view.state is not ExecutionState.PENDING
