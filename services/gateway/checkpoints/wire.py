"""Convert checkpoints and decisions between messages and values."""

from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import checkpoint_pb2 as pb

from services.common.db.paging import Page
from services.common.rpc.mapper import Mapper
from services.gateway.values.checkpoints import Checkpoint, CheckpointFilter, Decider
from services.gateway.wire.output import output_to_proto
from services.gateway.wire.requests import page_from_proto
from services.lifecycle.model.checkpoint import CheckpointState

_BRIEF_CHARACTERS: Final = 512
_CHECKPOINT: Final = Mapper(Checkpoint, pb.Checkpoint, by_hand={"output", "decider"})
_DECIDER: Final = Mapper(Decider, pb.Decider)
_FILTER: Final = Mapper(CheckpointFilter, pb.ListCheckpointsRequest, by_hand={"page_size", "page_token"})
_WATCH_FILTER: Final = Mapper(CheckpointFilter, pb.WatchCheckpointsRequest, by_hand={"states"})


def list_checkpoints_from_proto(request: pb.ListCheckpointsRequest) -> tuple[CheckpointFilter, Page]:
    """Read the filter and the page for listing checkpoints."""
    return _FILTER.from_proto(request), page_from_proto(request)


def watch_checkpoints_from_proto(request: pb.WatchCheckpointsRequest) -> CheckpointFilter:
    """Read which checkpoints to watch: of those that wait."""
    return _WATCH_FILTER.from_proto(request, states=frozenset({CheckpointState.PENDING}))


def checkpoint_to_proto(value: Checkpoint, *, brief: bool = False) -> pb.Checkpoint:
    """Write a checkpoint; when `brief`, as in lists, long texts are cut and changed files left out."""
    output, cut = value.output, {}
    if brief:
        output = replace(output, summary=_cut(output.summary), changes=replace(output.changes, files=()))
        cut = {"question": _cut(value.question), "comment": _cut(value.comment)}
    decider = None if value.decider == Decider() else _DECIDER.to_proto(value.decider)
    return _CHECKPOINT.to_proto(value, output=output_to_proto(output), decider=decider, **cut)


def _cut(text: str) -> str:
    return text if len(text) <= _BRIEF_CHARACTERS else text[: _BRIEF_CHARACTERS - 1] + "…"
