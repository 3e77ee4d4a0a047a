"""Convert cells, the status and the database's state to messages."""

from collections.abc import Iterable
from typing import Final

from boatyard.gateway.v1 import admin_pb2 as pb

from services.agent.allowance import Allowance
from services.agent.limits import widest
from services.agent.wire import allowance_to_proto
from services.common.rpc.mapper import Mapper
from services.common.rpc.times import timestamp_to_proto
from services.gateway.keys.store import KeysView
from services.gateway.schema.keys import CURRENT, NEXT, OLD
from services.gateway.values.cells import CellKind, CellState, CellView, DatabaseState, Queue
from services.lifecycle.nodes.wire import TROUBLE

_KINDS: Final = {kind: pb.Cell.Kind.Value(f"KIND_{kind}") for kind in CellKind}
_STATES: Final = {state: pb.Cell.State.Value(f"STATE_{state}") for state in CellState}
_KEY_STATES: Final = {
    NEXT: pb.SealingKey.STATE_NEXT,
    CURRENT: pb.SealingKey.STATE_CURRENT,
    OLD: pb.SealingKey.STATE_OLD,
}
_DATABASE: Final = Mapper(DatabaseState, pb.CheckDatabaseResponse)


def cell_to_proto(view: CellView) -> pb.Cell:
    """Write a cell."""
    return pb.Cell(
        cell_id=view.cell_id,
        kind=_KINDS[view.kind],
        state=_STATES[view.state],
        host=view.host,
        version=view.version,
        address=view.address,
        capacity=view.capacity,
        running_jobs=view.running_jobs,
        start_time=timestamp_to_proto(view.start_time),
        beat_time=timestamp_to_proto(view.beat_time),
        troubles=map(TROUBLE.to_proto, view.troubles),
        **allowance_to_proto(view.allowance),
    )


def status_to_proto(version: str, own_cell_id: str, cells: list[CellView], queue: Queue) -> pb.GetStatusResponse:
    """Write the number of jobs by state, and of cells by state with their capacity."""
    states = [view.state for view in cells]
    return pb.GetStatusResponse(
        version=version,
        cell_id=own_cell_id,
        active_cells=states.count(CellState.ACTIVE),
        paused_cells=states.count(CellState.PAUSED),
        away_cells=states.count(CellState.AWAY) + states.count(CellState.AWAY_PAUSED),
        not_ready_cells=states.count(CellState.NOT_READY),
        capacity=sum(view.capacity for view in cells if view.state is CellState.ACTIVE),
        jobs=queue.jobs,
        **allowance_to_proto(_union([view.allowance for view in cells if view.allowance])),
        oldest_wait_time=None if queue.oldest_wait_time is None else timestamp_to_proto(queue.oldest_wait_time),
    )


def _union(allowances: Iterable[Allowance]) -> Allowance:
    cells = list(allowances)
    return Allowance.of(
        {tier for cell in cells for tier in cell.tiers},
        {network for cell in cells for network in cell.networks},
        widest(cell.limits for cell in cells),
    )


def database_to_proto(state: DatabaseState) -> pb.CheckDatabaseResponse:
    """Write the database's state."""
    return _DATABASE.to_proto(state)


def keys_to_proto(view: KeysView) -> pb.Keys:
    """Write the keys, without themselves."""
    keys = (
        pb.SealingKey(key_id=key.key_id, state=_KEY_STATES[key.state], create_time=timestamp_to_proto(key.create_time))
        for key in view.keys
    )
    return pb.Keys(keys=keys, waiting_for_cell_ids=view.waiting_for, values_left=view.values_left)
