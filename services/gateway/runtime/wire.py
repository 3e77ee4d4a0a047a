"""Converts executions, and what is asked about them, between messages and values."""

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import grpc
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.git.v1 import git_pb2
from boatyard.workspace.v1 import workspace_pb2
from google.protobuf.message import Message
from grpc import aio

from services.agent.settings import AgentSettings
from services.common import display
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, Invalid
from services.common.reasons import with_advice
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check, Violation
from services.common.rpc.status import service_error
from services.gateway import scope
from services.gateway.jobs.submission import JobSubmission
from services.gateway.jobs.submission_wire import check_branch
from services.gateway.runtime.relay import ExecutionUpdate
from services.gateway.values.jobs import ExecutionFilter, ExecutionView
from services.gateway.wire.output import output_to_proto
from services.gateway.wire.requests import check_page_token, page_from_proto
from services.lifecycle.model.states import ExecutionState, Purpose

OfWorkspaces = TypeVar("OfWorkspaces", pb.ListWorkspacesRequest, pb.SweepWorkspacesRequest)
T = TypeVar("T")
Converted = TypeVar("Converted", bound=Message)

_FILTER: Final = Mapper(ExecutionFilter, pb.ListExecutionsRequest, by_hand={"page_size", "page_token"})
_EXECUTION: Final = Mapper(
    ExecutionView, pb.Execution, by_hand={"repository_id", "cell_id", "message", "output", "duration"}
)


def submission_from_proto(request: pb.ExecuteRequest) -> JobSubmission:
    """Read a submission."""
    return JobSubmission(
        project_id=None,
        prompt=request.prompt,
        worker_id=request.worker_id,
        work_item_id=request.work_item_id,
        agent=AgentSettings(timeout=request.timeout.ToTimedelta() if request.HasField("timeout") else None),
    )


def list_executions_from_proto(request: pb.ListExecutionsRequest) -> tuple[ExecutionFilter, Page]:
    """Read which executions to list: without purposes, those of agents."""
    filters = _FILTER.from_proto(request)
    if not filters.purposes:
        filters = replace(filters, purposes=frozenset({Purpose.AGENT}))
    return filters, page_from_proto(request)


def attached_execution_from_proto(request: pb.AttachExecutionRequest | None) -> str:
    """Read the execution from the first message of a caller that attaches. Raises Invalid."""
    if request is None or not request.execution_id:
        raise Invalid([("execution_id", "is required")])
    return request.execution_id


def check_begun(view: ExecutionView) -> None:
    """Raise FailedPrecondition (EXECUTION_STATE) for an execution that cannot be sent anything yet."""
    if view.state is ExecutionState.PENDING:
        raise FailedPrecondition(
            "EXECUTION_STATE",
            f"execution {view.execution_id!r} has not begun: ask again when it runs",
            view.execution_id,
            state=view.state,
            allowed_states=[ExecutionState.RUNNING],
        )


def check_diff_request(request: pb.ReadDiffRequest) -> Iterator[Violation]:
    """Yield what is wrong with a request, which names one thing to diff."""
    if bool(request.execution_id) == bool(request.snapshot_id):
        yield "execution_id", "or `snapshot_id` is required, and not both"


def check_list_snapshots(request: pb.ListSnapshotsRequest) -> Iterator[Violation]:
    """Yield what is wrong with the request of a caller who may see only some projects."""
    if scope.visible() is not None and not request.repository_id:
        yield "repository_id", "is required: the token is for some projects only"


CHECKS: Final[Mapping[str, Check]] = {
    pb.ReadDiffRequest.DESCRIPTOR.full_name: check_diff_request,
    pb.ListSnapshotsRequest.DESCRIPTOR.full_name: check_list_snapshots,
    pb.ListExecutionsRequest.DESCRIPTOR.full_name: check_page_token,
    pb.BranchWorkspaceRequest.DESCRIPTOR.full_name: lambda request: check_branch(request.branch),
    pb.PushWorkspaceRequest.DESCRIPTOR.full_name: lambda request: check_branch(request.branch),
}
"""Rules for requests as a whole, by their full names."""


def limited_to_visible(request: OfWorkspaces) -> OfWorkspaces:
    """Limit a request to the caller's project if it may see only one and names none. Raises Invalid for several."""
    projects = scope.visible()
    if projects is None or request.project_id or getattr(request, "job_id", ""):
        return request
    if len(projects) > 1:
        or_job = "or `job_id` " if hasattr(request, "job_id") else ""
        raise Invalid([("project_id", f"{or_job}is required: the token is for several projects")])
    limited = type(request)(project_id=min(projects))
    limited.MergeFrom(request)
    return limited


def same_fields(source: Message, kind: type[Converted], **others: Any) -> Converted:  # noqa: ANN401 - of any type
    """Return a message of another type that has all fields of a message, by their names, and others.

    Raises ValueError when a field that is set does not exist there.
    """
    return kind(**{field.name: value for field, value in source.ListFields()}, **others)


def usage_to_proto(cell_id: str, answer: workspace_pb2.ListWorkspaceUsageResponse) -> pb.ListWorkspaceUsageResponse:
    """Convert what the workspaces of a cell take up."""
    next_page_token = answer.next_page_token
    answer.ClearField("next_page_token")
    usage = same_fields(answer, pb.CellUsage, cell_id=cell_id)
    return pb.ListWorkspaceUsageResponse(cells=[usage], next_page_token=next_page_token)


def update_to_proto(update: ExecutionUpdate) -> pb.WatchExecutionResponse:
    """Convert what a viewer is sent."""
    end = None if update.end is None else execution_to_proto(update.end)
    return pb.WatchExecutionResponse(events=update.events, end=end, next_sequence=update.next_sequence)


def leave_caveats_out(snapshots: Iterable[git_pb2.Snapshot]) -> None:
    """Remove what was not taken: its paths may have secrets, which git services do not know. An output has it clean."""
    for snapshot in snapshots:
        snapshot.ClearField("caveats")


def artifacts_request(request: pb.ListArtifactsRequest | pb.ReadArtifactRequest, kind: type[Converted]) -> Converted:
    """Return the request for a cell's git service, which keeps artifacts under the ids of executions."""
    fields = {field.name: value for field, value in request.ListFields() if field.name != "execution_id"}
    return kind(artifacts_id=request.execution_id, **fields)


def check_no_artifacts(view: ExecutionView) -> None:
    """Raise FailedPrecondition (ARTIFACTS_EXPIRED) for an execution that had artifacts."""
    if view.output.artifacts.total:
        raise FailedPrecondition(
            "ARTIFACTS_EXPIRED",
            f"the artifacts of execution {view.execution_id!r} are not kept any more (BOATYARD_GIT_RESULT_KEEP_HOURS):"
            " their names, sizes and hashes are in its output",
            view.execution_id,
        )


def result_expired(execution_id: str, commit_id: str) -> FailedPrecondition:
    """Return the error that says that a result is gone from its cell, and what remains of it."""
    return FailedPrecondition(
        "RESULT_EXPIRED",
        f"the result of execution {execution_id!r} is not kept any more (BOATYARD_GIT_RESULT_KEEP_HOURS): what was"
        " stored of its diff is in the execution's output, and what was pushed is where it was pushed to",
        execution_id,
        metadata={"commit_id": commit_id},
    )


def result_commits(view: ExecutionView) -> tuple[str, str]:
    """Return the commit that an execution began with and its result's. Raises FailedPrecondition (NO_RESULT)."""
    output = view.output
    if not output.commit_id:
        raise FailedPrecondition(
            "NO_RESULT", f"execution {view.execution_id!r} has no result, or none yet", view.execution_id
        )
    return output.base_commit_id, output.commit_id


def execution_to_proto(view: ExecutionView) -> pb.Execution:
    """Convert an execution into its message."""
    duration = None
    if view.start_time is not None:
        duration = max(timedelta(), (view.end_time or datetime.now(UTC)) - view.start_time)
    message = display.lines(with_advice(view.reason, view.message))
    return _EXECUTION.to_proto(view, message=message, output=output_to_proto(view.output), duration=duration)


async def answer_of(call: Awaitable[T]) -> T:
    """Return a node's answer, or raise as `node_refusals` does."""
    with node_refusals():
        return await call


@contextmanager
def node_refusals() -> Iterator[None]:
    """Pass a node's refusal on to the caller; a node that is away is reported in the same way for every RPC."""
    try:
        yield
    except aio.AioRpcError as error:
        if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
            raise
        raise service_error(error) from error
