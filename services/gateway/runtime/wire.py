"""Converts executions, and what is asked about them, between messages and values."""

from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from boatyard.execution.v1 import event_pb2, execution_pb2
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.workspace.v1 import workspace_pb2

from services.agent.settings import AgentSettings
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition
from services.common.reasons import with_advice
from services.gateway import scope
from services.gateway.jobs.submission import JobSubmission
from services.gateway.routing.gathering import PartialResult
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.jobs import ExecutionFilter, ExecutionView
from services.gateway.wire.output import output_to_proto
from services.gateway.wire.times import duration_to_proto, timestamp_to_proto
from services.gateway.wire.validation import Validator, required_id
from services.lifecycle.model.job_spec import MAX_PROMPT_BYTES
from services.lifecycle.model.states import ExecutionState

_STATES: Final = {pb.Execution.State.Value(f"STATE_{state}"): state for state in ExecutionState}
_WORKSPACE_STATES: Final = {
    number: name.removeprefix("STATE_") for name, number in workspace_pb2.Workspace.State.items() if number
}
_KINDS: Final = {number: name.removeprefix("EVENT_KIND_") for name, number in event_pb2.EventKind.items() if number}
_MAX_TIMEOUT: Final = timedelta(days=7)
MAX_MESSAGE_BYTES: Final = 64 << 10
MAX_REASON_BYTES: Final = 4 << 10
ListRequest = TypeVar("ListRequest", pb.ListWorkspacesRequest, pb.ListWorkspaceUsageRequest, pb.ListSnapshotsRequest)
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}


def submission_from_proto(request: pb.ExecuteRequest) -> tuple[JobSubmission, IdempotencyKey | None]:
    """Read a submission. Raises Invalid with all violations."""
    with Validator() as check:
        timeout = None
        if request.HasField("timeout"):
            timeout = check.duration("timeout", request.timeout, _MAX_TIMEOUT)
        submission = JobSubmission(
            project_id=None,
            prompt=check.text("prompt", request.prompt, MAX_PROMPT_BYTES, required=True),
            worker_id=check.required_id("worker_id", request.worker_id),
            work_item_id=check.required_id("work_item_id", request.work_item_id),
            agent=AgentSettings(timeout=timeout),
        )
        key = check.idempotency_key(request, request.request_id)
    return submission, key


def list_executions_from_proto(request: pb.ListExecutionsRequest) -> tuple[ExecutionFilter, Page]:
    """Read which executions to list. Raises Invalid with all violations."""
    with Validator() as check:
        filters = ExecutionFilter(
            project_id=check.optional_id("project_id", request.project_id),
            states=check.choices("states", request.states, _STATES),
            job_id=check.optional_id("job_id", request.job_id),
            worker_id=check.optional_id("worker_id", request.worker_id),
            work_item_id=check.optional_id("work_item_id", request.work_item_id),
        )
        page = check.page(request, request.page_size, request.page_token)
    return filters, page


def watch_from_proto(request: pb.WatchExecutionRequest) -> tuple[str, int]:
    """Read which events to watch: the execution, and the first sequence. Raises Invalid with all violations."""
    with Validator() as check:
        check.choices("kinds", request.kinds, _KINDS)
        if request.from_sequence < 0:
            check.add("from_sequence", "must not be negative")
        return check.required_id("execution_id", request.execution_id), max(1, request.from_sequence)


def check_message(request: pb.SendMessageRequest) -> None:
    """Check a message to a model. Raises Invalid with all violations."""
    with Validator() as check:
        check.required_id("execution_id", request.execution_id)
        check.required_id("message_id", request.message_id)
        check.text("text", request.text, MAX_MESSAGE_BYTES, required=True)


def check_permission(request: pb.ResolvePermissionRequest) -> None:
    """Check an answer to a model's question. Raises Invalid with all violations."""
    with Validator() as check:
        check.required_id("execution_id", request.execution_id)
        check.line("permission_id", request.permission_id, required=True)
        check.text("reason", request.reason, MAX_REASON_BYTES)


def attached_execution_from_proto(request: pb.AttachExecutionRequest | None) -> str:
    """Read the execution from the first message of a caller that attaches. Raises Invalid."""
    return required_id("execution_id", "" if request is None else request.execution_id)


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


def check_diff_request(request: pb.ReadDiffRequest) -> None:
    """Check that a request names one thing to diff. Raises Invalid with all violations."""
    with Validator() as check:
        if bool(request.execution_id) == bool(request.snapshot_id):
            check.add("execution_id", "or `snapshot_id` is required, and not both")
        check.optional_id("execution_id", request.execution_id)
        check.optional_id("snapshot_id", request.snapshot_id)


def list_snapshots_from_proto(request: pb.ListSnapshotsRequest) -> Page:
    """Read which page to list, and check what a git service would refuse in its own words. Raises Invalid."""
    with Validator() as check:
        check.optional_id("repository_id", request.repository_id)
        if scope.visible() is not None and not request.repository_id:
            check.add("repository_id", "is required: the token is for some projects only")
        return check.page(request, request.page_size, request.page_token)


def limited_to_visible(request: pb.ListWorkspacesRequest) -> pb.ListWorkspacesRequest:
    """Limit a request to the caller's project if it may see only one and names none. Raises Invalid for several."""
    projects = scope.visible()
    if projects is None or request.project_id or request.job_id:
        return request
    with Validator() as check:
        if len(projects) > 1:
            check.add("project_id", "or `job_id` is required: the token is for several projects")
    limited = pb.ListWorkspacesRequest(project_id=min(projects))
    limited.MergeFrom(request)
    return limited


def list_workspaces_from_proto(request: pb.ListWorkspacesRequest) -> Page:
    """Read which page to list, and check what a workspace service would refuse in its own words. Raises Invalid."""
    with Validator() as check:
        check.optional_id("project_id", request.project_id)
        check.optional_id("job_id", request.job_id)
        check.choices("states", request.states, _WORKSPACE_STATES)
        return check.page(request, request.page_size, request.page_token)


def page_request(request: ListRequest, size: int, token: str) -> ListRequest:
    """Return the same request for another page of the list."""
    copy = type(request)()
    copy.CopyFrom(request)
    copy.page_size, copy.page_token = size, token
    return copy


def workspaces_to_proto(result: PartialResult[pb.ListWorkspacesResponse]) -> pb.ListWorkspacesResponse:
    """Merge the answers of cells into one."""
    response = pb.ListWorkspacesResponse(
        next_page_token=result.next_page_token, unreachable_cell_ids=result.unreachable
    )
    for cell_id, answer in result.answers:
        response.workspaces.extend(answer.workspaces)
        response.cell_ids.update({workspace.workspace_id: cell_id for workspace in answer.workspaces})
    return response


def snapshots_to_proto(result: PartialResult[pb.ListSnapshotsResponse]) -> pb.ListSnapshotsResponse:
    """Merge the answers of cells into one."""
    response = pb.ListSnapshotsResponse(next_page_token=result.next_page_token, unreachable_cell_ids=result.unreachable)
    for cell_id, answer in result.answers:
        response.snapshots.extend(answer.snapshots)
        response.cell_ids.update({snapshot.snapshot_id: cell_id for snapshot in answer.snapshots})
    return response


def usage_to_proto(result: PartialResult[pb.ListWorkspaceUsageResponse]) -> pb.ListWorkspaceUsageResponse:
    """Merge the answers of cells into one."""
    return pb.ListWorkspaceUsageResponse(
        cells=[cell for _, answer in result.answers for cell in answer.cells],
        next_page_token=result.next_page_token,
        unreachable_cell_ids=result.unreachable,
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
    message = pb.Execution(
        execution_id=view.execution_id,
        job_id=view.job_id,
        project_id=view.project_id,
        worker_id=view.worker_id,
        work_item_id=view.work_item_id,
        purpose=execution_pb2.ExecutionSpec.Purpose.Value(f"PURPOSE_{view.purpose}"),
        attempt=view.attempt,
        state=_STATE_NUMBERS[view.state],
        reason=view.reason,
        message=with_advice(view.reason, view.message),
        output=output_to_proto(view.output),
        create_time=timestamp_to_proto(view.create_time),
    )
    if view.start_time is not None:
        end = view.end_time or datetime.now(UTC)
        message.start_time.CopyFrom(timestamp_to_proto(view.start_time))
        message.duration.CopyFrom(duration_to_proto(max(timedelta(), end - view.start_time)))
    if view.end_time is not None:
        message.end_time.CopyFrom(timestamp_to_proto(view.end_time))
    return message
