"""Decides for each call which cell serves it: this one, or another, to which the call is forwarded whole.

A call that another gateway has forwarded is always served here, and never forwarded again.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from services.common.errors import FailedPrecondition, NotFound, ServiceError, Unavailable
from services.common.rpc.call import Context
from services.gateway.cells.store import CellStore
from services.gateway.routing.gathering import ask_all, gather
from services.gateway.routing.owners import HERE, OwnerFinder
from services.gateway.routing.peers import CELL_UNAVAILABLE, Peers, cell_unavailable
from services.gateway.routing.wire import Rpc
from services.gateway.values.cells import Cell, CellKind
from services.gateway.values.principal import current_principal

Method = Callable[[Any, Context], Any]
"""A method of a servicer: with a request, or an iterator of them, it returns a coroutine or an async generator."""
Messages = AsyncGenerator[Any, None]
"""The response of a call, or the stream of them; they may be serialized already."""


class OnAnotherCell(Exception):
    """Raised by a servicer when what it waited for has begun on another cell. It may have sent heartbeats by then."""


class NotRecorded(Exception):
    """Raised by a stand-in: the database does not have what the call asks for."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call, and the method that serves it on this cell."""

    rpc: Rpc
    local: Method
    request: Any
    context: Context

    async def messages(self, method: Method) -> Messages:
        """Yield what a servicer's method answers."""
        if not self.rpc.response_streaming:
            yield await method(self.request, self.context)
            return
        async with aclosing(method(self.request, self.context)) as messages:
            async for message in messages:
                yield message


class Router:
    """Routes the calls of servicers, which themselves only know this cell.

    `stand_ins` are servicers, too, which answer from the database for cells of a kind that cannot be called, as far as
    they have a method for it and do not raise NotRecorded.
    """

    def __init__(
        self, cell_id: str, cells: CellStore, owners: OwnerFinder, peers: Peers, stand_ins: Mapping[CellKind, object]
    ) -> None:
        self._cell_id = cell_id
        self._cells = cells
        self._owners = owners
        self._peers = peers
        self._stand_ins = stand_ins

    def routed(self, servicer: object, rpcs: Iterable[Rpc]) -> SimpleNamespace:
        """Return a servicer of the same RPCs, whose calls are served by the cells that the contract says."""
        return SimpleNamespace(**{rpc.name: self._routed(rpc, getattr(servicer, rpc.name)) for rpc in rpcs})

    def _routed(self, rpc: Rpc, local: Method) -> Method:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with aclosing(self._serve(rpc, local, request, context)) as messages:
                async for message in messages:
                    yield message

        async def single(request: Any, context: Context) -> Any:
            async with aclosing(self._serve(rpc, local, request, context)) as messages:
                return await anext(messages)

        async def merged(request: Any, context: Context) -> Any:
            async def ask(cell_id: str, part: Any) -> Any:
                async with aclosing(await self._at(cell_id, _Call(rpc, local, part, context))) as messages:
                    return await anext(messages)

            if current_principal().forwarded_by:
                return await local(request, context)
            return await (gather if rpc.has_pages else ask_all)(rpc, request, await self._all_cells(), ask)

        if rpc.items_of_cells:
            return merged
        if not rpc.cell_of:
            return local
        return stream if rpc.response_streaming else single

    async def _serve(self, rpc: Rpc, local: Method, request: Any, context: Context) -> Messages:
        """Yield the answer of the cell that has what the call is about."""
        first, request = await _peek(request) if rpc.request_streaming else (request, request)
        call, last = _Call(rpc, local, request, context), None
        while True:
            try:
                cell_ids = [HERE] if current_principal().forwarded_by else await self._cells_of(first, rpc)
                async with aclosing(self._ask(cell_ids, call)) as messages:
                    async for message in messages:
                        yield message
                        last = message
            except OnAnotherCell:
                continue
            except Unavailable as error:
                raise rpc.with_position(error, first, last) from error
            else:
                return

    async def _cells_of(self, request: Any, rpc: Rpc) -> Sequence[str]:
        """Return the id of the cell that a call is for, or those of all cells that may have what it is about."""
        cell_id = await self._owners.cell_of(request, rpc.cell_of)
        return await self._all_cells() if cell_id is None else [cell_id]

    async def _all_cells(self) -> Sequence[str]:
        """Return the ids of all cells that have node services, in their order."""
        others = {cell.cell_id for cell in await self._cells.all() if cell.kind is CellKind.GATEWAY}
        return sorted({self._cell_id} | others)

    async def _ask(self, cell_ids: Sequence[str], call: _Call) -> Messages:
        """Yield the answer of the first cell that has what the call is about; a change is made on each of them."""
        if call.rpc.changes_something and len(cell_ids) > 1:
            yield await self._change(cell_ids, call)
            return
        failures: list[ServiceError] = []
        for cell_id in cell_ids:
            is_answered = False
            try:
                async with aclosing(await self._at(cell_id, call)) as messages:
                    async for message in messages:
                        is_answered = True
                        yield message
            except (NotFound, Unavailable) as error:
                if is_answered:
                    raise
                failures.append(error)
            else:
                return
        # A cell that does not answer may be the one that has it.
        raise next((failure for failure in failures if isinstance(failure, Unavailable)), failures[-1])

    async def _change(self, cell_ids: Sequence[str], call: _Call) -> Any:
        """Make a change on each of the cells; return the answer of one that has what it is about, or raise NotFound."""
        answers, missing = [], []
        for cell_id in cell_ids:
            try:
                async with aclosing(await self._at(cell_id, call)) as messages:
                    answers.append(await anext(messages))
            except NotFound as error:
                missing.append(error)
        if not answers:
            raise missing[-1]
        return answers[-1]

    async def _at(self, cell_id: str, call: _Call) -> Messages:
        """Return the answer of a cell, or what can be said in its place."""
        if cell_id in {HERE, self._cell_id}:
            return call.messages(call.local)
        cell = await self._cells.find(cell_id)
        if cell is None:  # it has been forgotten
            return self._recorded(CellKind.GATEWAY, call, cell_unavailable(cell_id))
        if cell.kind is CellKind.COORDINATOR:
            return self._recorded(cell.kind, call, _on_coordinator(cell))
        if not cell.address or cell.is_away:
            return self._recorded(cell.kind, call, cell_unavailable(cell_id, cell.host))
        return self._forwarded(cell, call)

    async def _forwarded(self, cell: Cell, call: _Call) -> Messages:
        """Yield the answer of another cell's gateway, and what is recorded when it does not answer any more."""
        rpc = call.rpc
        try:
            if not rpc.response_streaming:
                yield await self._peers.response(cell, rpc, call.request, call.context)
                return
            async with aclosing(self._peers.responses(cell, rpc, call.request)) as messages:
                async for message in messages:
                    yield message
        except Unavailable as error:
            if error.reason != CELL_UNAVAILABLE:
                raise
            async with aclosing(self._recorded(cell.kind, call, error)) as messages:
                async for message in messages:
                    yield message

    async def _recorded(self, kind: CellKind, call: _Call, problem: ServiceError) -> Messages:
        """Yield the answer of the stand-in for a cell that cannot be called; raise `problem` when it has none."""
        method = getattr(self._stand_ins.get(kind), call.rpc.name, None)
        if method is None:
            raise problem
        try:
            async with aclosing(call.messages(method)) as messages:
                async for message in messages:
                    yield message
        except NotRecorded:
            raise problem from None


async def _peek(requests: AsyncIterator[Any]) -> tuple[Any, AsyncIterator[Any]]:
    """Return the first message of a caller's stream, None for an empty one, and all of its messages."""
    first = await anext(aiter(requests), None)

    async def all_requests() -> AsyncIterator[Any]:
        if first is not None:
            yield first
            async for request in requests:
                yield request

    return first, all_requests()


def _on_coordinator(cell: Cell) -> FailedPrecondition:
    where = f"{cell.cell_id} on {cell.host}" if cell.host else cell.cell_id
    return FailedPrecondition(
        "ON_COORDINATOR",
        f"it is on the machine of coordinator {where}, which gateways cannot call: ask on that machine",
        cell.cell_id,
    )
