"""Convert checkpoints and decisions between messages and values."""

from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import checkpoint_pb2 as pb

from services.common.db.paging import Page
from services.common.rpc.times import timestamp_to_proto
from services.gateway.values.checkpoints import Checkpoint, CheckpointDecision, CheckpointFilter, Decider
from services.gateway.wire.output import output_to_proto
from services.gateway.wire.validation import Validator
from services.lifecycle.model.checkpoint import MAX_WORDS_BYTES, CheckpointState, Origin

_BRIEF_CHARACTERS: Final = 512
_STATES: Final = {pb.Checkpoint.State.Value(f"STATE_{state}"): state for state in CheckpointState}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}
_ORIGIN_NUMBERS: Final = {origin: pb.Checkpoint.Origin.Value(f"ORIGIN_{origin}") for origin in Origin}


def list_checkpoints_from_proto(request: pb.ListCheckpointsRequest) -> tuple[CheckpointFilter, Page]:
    """Read the filter and the page for listing checkpoints. Raises Invalid with all violations."""
    with Validator() as check:
        filters = CheckpointFilter(
            project_id=check.optional_id("project_id", request.project_id),
            job_id=check.optional_id("job_id", request.job_id),
            states=check.choices("states", request.states, _STATES),
        )
        page = check.page(request, request.page_size, request.page_token)
    return filters, page


def approval_from_proto(request: pb.ApproveCheckpointRequest, decider: Decider) -> tuple[str, CheckpointDecision]:
    """Read an approval. Raises Invalid with all violations."""
    with Validator() as check:
        checkpoint_id = check.required_id("checkpoint_id", request.checkpoint_id)
        comment = check.text("comment", request.comment, MAX_WORDS_BYTES)
    return checkpoint_id, CheckpointDecision(state=CheckpointState.APPROVED, comment=comment, decider=decider)


def rejection_from_proto(request: pb.RejectCheckpointRequest, decider: Decider) -> tuple[str, CheckpointDecision]:
    """Read a rejection. Raises Invalid with all violations."""
    with Validator() as check:
        checkpoint_id = check.required_id("checkpoint_id", request.checkpoint_id)
        reason = check.text("reason", request.reason, MAX_WORDS_BYTES, required=True)
    return checkpoint_id, CheckpointDecision(state=CheckpointState.REJECTED, comment=reason, decider=decider)


def requested_changes_from_proto(request: pb.RequestChangesRequest, decider: Decider) -> tuple[str, CheckpointDecision]:
    """Read a request for changes. Raises Invalid with all violations."""
    with Validator() as check:
        checkpoint_id = check.required_id("checkpoint_id", request.checkpoint_id)
        comment = check.text("comment", request.comment, MAX_WORDS_BYTES, required=True)
    return checkpoint_id, CheckpointDecision(state=CheckpointState.CHANGES_REQUESTED, comment=comment, decider=decider)


def checkpoint_to_proto(value: Checkpoint, *, brief: bool = False) -> pb.Checkpoint:
    """Write a checkpoint; when `brief`, as in lists, long texts are cut and changed files left out."""
    output = value.output
    if brief:
        output = replace(output, summary=_cut(output.summary), changes=replace(output.changes, files=()))
    return pb.Checkpoint(
        checkpoint_id=value.checkpoint_id,
        job_id=value.job_id,
        project_id=value.project_id,
        execution_id=value.execution_id,
        name=value.name,
        origin=_ORIGIN_NUMBERS[value.origin],
        question=_cut(value.question) if brief else value.question,
        round=value.round,
        takes_changes=value.takes_changes,
        output=output_to_proto(output),
        state=_STATE_NUMBERS[value.state],
        comment=_cut(value.comment) if brief else value.comment,
        decider=_decider_to_proto(value.decider),
        create_time=timestamp_to_proto(value.create_time),
        expire_time=timestamp_to_proto(value.expire_time),
        decide_time=None if value.decide_time is None else timestamp_to_proto(value.decide_time),
    )


def _decider_to_proto(value: Decider) -> pb.Decider | None:
    return None if value == Decider() else pb.Decider(name=value.name, peer=value.peer, via=value.via)


def _cut(text: str) -> str:
    return text if len(text) <= _BRIEF_CHARACTERS else text[: _BRIEF_CHARACTERS - 1] + "…"
