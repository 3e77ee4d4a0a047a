"""Passes on an execution's events from where they are: this cell's execution service, or the database.

The relay holds one batch at a time, and asks for the next when the viewer has taken it. When the execution service goes
away, the relay asks it again from the next sequence, so that a viewer sees neither gaps nor duplicates.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from services.common.batching import Batches
from services.common.errors import OutOfRange, Unavailable
from services.gateway.jobs.shared_reads import WATCHERS
from services.gateway.jobs.store import JobStore
from services.gateway.ledger.looks import HEARTBEAT_SECONDS, looks
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.values.jobs import ExecutionView
from services.lifecycle.model.states import ExecutionState

_PATIENCE_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.3
NODE_LOST: Final = "NODE_LOST"

Condition = Callable[[ExecutionView], bool]


class SourceUnreachable(Exception):
    """The source does not answer now. `cause` is an error that the server's layers know how to report to the caller."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Some events of an execution, in order; `is_last` means that it has ended and there are no more."""

    events: Sequence[Any]
    is_last: bool
    next_sequence: int | None = None
    """The sequence to continue from after these events; None where it has not changed."""


class EventSource(Protocol):
    """Where the events of some executions are."""

    def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: Sequence[Any]
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield an execution's events from the sequence `first` on, of some kinds or all, and empty heartbeats.

        Raises a ServiceError for what it refuses, and SourceUnreachable when it cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class ExecutionUpdate:
    """Some events, or the end of the execution, and the sequence to continue from; a heartbeat has neither."""

    next_sequence: int
    events: Sequence[Any] = ()
    end: ExecutionView | None = None


class Relay:
    """Reads the events of executions from a source; `begun` is called with an execution that was waited for."""

    def __init__(
        self,
        store: JobStore,
        notifier: JobNotifier,
        source: EventSource,
        begun: Callable[[ExecutionView], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._source = source
        self._begun = begun
        self._executions = Batches(self._execution, most=1, turns_of=WATCHERS)

    async def updates(
        self, execution_id: str, first: int, *, follow: bool, kinds: Sequence[Any] = ()
    ) -> AsyncGenerator[ExecutionUpdate, None]:
        """Yield events from the sequence `first` on, of some kinds or all; with `follow` also the execution's end.

        Raises NotFound, OutOfRange (EVENTS_OUT_OF_RANGE), Unavailable, gRPC's error for a node that stays away, and
        what `begun` raises.
        """
        view = await self._store.execution(execution_id)
        if not _has_begun(view):
            if not follow:
                return
            async with aclosing(self._until(view, _has_begun)) as views:
                async for current in views:
                    view = current or view
                    yield ExecutionUpdate(first)
            self._begun(view)
        if view.state.is_final and view.start_time is None:  # it never began, so there are no events
            if first > 1:
                raise OutOfRange(1, 1, reason="EVENTS_OUT_OF_RANGE")
            if follow:
                yield ExecutionUpdate(first, end=view)
            return
        position = first
        async with aclosing(self._events(view, first, follow=follow, kinds=kinds)) as updates:
            async for update in updates:
                position = update.next_sequence
                yield update
        if follow:
            # The node already knows of the end; the gateway does when the driver has recorded it.
            async with aclosing(self._until(view, lambda current: current.state.is_final)) as views:
                async for ended in views:
                    yield ExecutionUpdate(position, end=ended)

    async def _until(self, view: ExecutionView, condition: Condition) -> AsyncGenerator[ExecutionView | None, None]:
        """Yield None as heartbeats, and finally the execution, once it meets the condition."""

        async def look() -> ExecutionView | None:
            current = await self._executions.answer(view.execution_id)
            return current if current is not None and condition(current) else None

        async with aclosing(looks(self._notifier, view.job_id, look)) as updates:
            async for current in updates:
                yield current
                if current is not None:
                    return

    async def _execution(self, execution_ids: Collection[str]) -> Mapping[str, ExecutionView]:
        return {execution_id: await self._store.execution(execution_id) for execution_id in execution_ids}

    async def _events(
        self, view: ExecutionView, first: int, *, follow: bool, kinds: Sequence[Any]
    ) -> AsyncGenerator[ExecutionUpdate, None]:
        position, last_contact = first, time.monotonic()
        while True:
            try:
                source = self._source.events(view.execution_id, position, follow=follow, kinds=kinds)
                async with aclosing(source) as batches:
                    async for batch in batches:
                        position = batch.next_sequence or position
                        if batch.events or not batch.is_last:
                            yield ExecutionUpdate(position, batch.events)
                        last_contact = time.monotonic()
                        if batch.is_last:
                            return
            except SourceUnreachable as unreachable:
                if follow and await self._is_lost(view):
                    return
                _check_patience(last_contact, unreachable)
            else:
                if not follow:
                    return
            if time.monotonic() - last_contact > HEARTBEAT_SECONDS:
                yield ExecutionUpdate(position)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _is_lost(self, view: ExecutionView) -> bool:
        """True when an execution was lost with its node, so that no more events can come."""
        with suppress(Unavailable):
            current = await self._store.execution(view.execution_id)
            return current.state.is_final and current.reason == NODE_LOST
        return False


def _check_patience(last_contact: float, unreachable: SourceUnreachable) -> None:
    """Raise the cause of `unreachable` once the source has not answered for too long."""
    if time.monotonic() - last_contact > _PATIENCE_SECONDS:
        raise unreachable.cause from unreachable


def _has_begun(view: ExecutionView) -> bool:
    return view.state is not ExecutionState.PENDING
