"""Executions between messages and values."""

from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from boatyard.execution.v1 import event_pb2, execution_pb2
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.workspace.v1 import workspace_pb2

from services.common.db.paging import Page
from services.common.errors import FailedPrecondition
from services.gateway.auth import scope
from services.gateway.catalog.agent import MAX_TIMEOUT, AgentSettings
from services.gateway.jobs.drafts import Draft
from services.gateway.jobs.model import ExecutionFilter, ExecutionView
from services.gateway.jobs.output_wire import output as output_message
from services.gateway.requests import Request
from services.gateway.runtime.gathered import Gathered
from services.gateway.wire import Checks, duration, timestamp
from services.lifecycle.model.job_spec import MAX_PROMPT_BYTES
from services.lifecycle.model.states import ExecutionState

_STATES: Final = {pb.Execution.State.Value(f"STATE_{state}"): state for state in ExecutionState}
_WORKSPACE_STATES: Final = {
    number: name.removeprefix("STATE_") for name, number in workspace_pb2.Workspace.State.items() if number
}
_KINDS: Final = {number: name.removeprefix("EVENT_KIND_") for name, number in event_pb2.EventKind.items() if number}
MAX_MESSAGE_BYTES: Final = 64 << 10
MAX_REASON_BYTES: Final = 4 << 10
Listing = TypeVar("Listing", pb.ListWorkspacesRequest, pb.UsageOfWorkspacesRequest, pb.ListSnapshotsRequest)
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}


def work(request: pb.ExecuteRequest) -> tuple[Draft, Request | None]:
    """Read what is wanted. Raises Invalid with all violations."""
    with Checks() as check:
        timeout = None
        if request.HasField("timeout"):
            timeout = check.duration("timeout", request.timeout, MAX_TIMEOUT)
        draft = Draft(
            project_id=None,
            prompt=check.text("prompt", request.prompt, MAX_PROMPT_BYTES, required=True),
            worker_id=check.required_id("worker_id", request.worker_id),
            work_item_id=check.required_id("work_item_id", request.work_item_id),
            agent=AgentSettings(timeout=timeout),
        )
        once = check.request(request, request.request_id)
    return draft, once


def execution_id(value: str) -> str:
    """Read a required id. Raises Invalid."""
    with Checks() as check:
        return check.required_id("execution_id", value)


def wanted(request: pb.ListExecutionsRequest) -> tuple[ExecutionFilter, Page]:
    """Read which executions to list. Raises Invalid with all violations."""
    with Checks() as check:
        which = ExecutionFilter(
            project_id=check.optional_id("project_id", request.project_id),
            states=check.choices("states", request.states, _STATES),
            job_id=check.optional_id("job_id", request.job_id),
            worker_id=check.optional_id("worker_id", request.worker_id),
            work_item_id=check.optional_id("work_item_id", request.work_item_id),
        )
        page = check.page(request, request.page_size, request.page_token)
    return which, page


def watch(request: pb.WatchExecutionRequest) -> tuple[str, int]:
    """Read which events are wanted: the execution, and the first sequence. Raises Invalid with all violations."""
    with Checks() as check:
        check.choices("kinds", request.kinds, _KINDS)
        if request.from_sequence < 0:
            check.add("from_sequence", "must not be negative")
        return check.required_id("execution_id", request.execution_id), max(1, request.from_sequence)


def check_message(request: pb.SendMessageRequest) -> None:
    """Look at what a model is to be told. Raises Invalid with all violations."""
    with Checks() as check:
        check.required_id("execution_id", request.execution_id)
        check.required_id("message_id", request.message_id)
        check.text("text", request.text, MAX_MESSAGE_BYTES, required=True)


def check_permission(request: pb.ResolvePermissionRequest) -> None:
    """Look at an answer to a model's question. Raises Invalid with all violations."""
    with Checks() as check:
        check.required_id("execution_id", request.execution_id)
        check.line("permission_id", request.permission_id, required=True)
        check.text("reason", request.reason, MAX_REASON_BYTES)


def attaching(request: pb.AttachExecutionRequest | None) -> str:
    """Read the first message of who attaches: the execution. Raises Invalid."""
    return execution_id("" if request is None else request.execution_id)


def typed(request: pb.AttachExecutionRequest) -> execution_pb2.AttachExecutionRequest:
    """Pass on what somebody does at a terminal; the execution service says what is wrong with it."""
    match request.WhichOneof("kind"):
        case "input":
            return execution_pb2.AttachExecutionRequest(input=request.input)
        case "size":
            return execution_pb2.AttachExecutionRequest(size=request.size)
        case _:
            return execution_pb2.AttachExecutionRequest(execution_id=request.execution_id)


def check_begun(view: ExecutionView) -> None:
    """Raise FailedPrecondition (EXECUTION_STATE) for an execution that nobody can talk to yet."""
    if view.state is ExecutionState.PENDING:
        raise FailedPrecondition(
            "EXECUTION_STATE",
            f"execution {view.execution_id!r} has not begun: ask again when it runs",
            view.execution_id,
            state=view.state,
            allowed_states=[ExecutionState.RUNNING],
        )


def snapshot_id(value: str) -> str:
    """Read a required id. Raises Invalid."""
    with Checks() as check:
        return check.required_id("snapshot_id", value)


def check_diff_wanted(request: pb.ReadDiffRequest) -> None:
    """Look at what a diff is wanted of. Raises Invalid with all violations."""
    with Checks() as check:
        if bool(request.execution_id) == bool(request.snapshot_id):
            check.add("execution_id", "is required, or else `snapshot_id`")
        check.optional_id("execution_id", request.execution_id)
        check.optional_id("snapshot_id", request.snapshot_id)


def snapshots_wanted(request: pb.ListSnapshotsRequest) -> Page:
    """Read which page is wanted, and what a git service would refuse in its own words. Raises Invalid."""
    with Checks() as check:
        check.optional_id("repository_id", request.repository_id)
        if scope.visible() is not None and not request.repository_id:
            check.add("repository_id", "is required: the token is for some projects alone")
        return check.page(request, request.page_size, request.page_token)


def seen_workspaces(request: pb.ListWorkspacesRequest) -> pb.ListWorkspacesRequest:
    """Return what a caller asks for who sees some projects alone: those of its only one. Raises Invalid."""
    projects = scope.visible()
    if projects is None or request.project_id or request.job_id:
        return request
    with Checks() as check:
        if len(projects) > 1:
            check.add("project_id", "is required, or else `job_id`: the token is for several projects")
    seen = pb.ListWorkspacesRequest(project_id=min(projects))
    seen.MergeFrom(request)
    return seen


def workspaces_wanted(request: pb.ListWorkspacesRequest) -> Page:
    """Read which page is wanted, and what a workspace service would refuse in its own words. Raises Invalid."""
    with Checks() as check:
        check.optional_id("project_id", request.project_id)
        check.optional_id("job_id", request.job_id)
        check.choices("states", request.states, _WORKSPACE_STATES)
        return check.page(request, request.page_size, request.page_token)


def usage_wanted(request: pb.UsageOfWorkspacesRequest) -> Page:
    """Read which page is wanted. Raises Invalid."""
    with Checks() as check:
        return check.page(request, request.page_size, request.page_token)


def part_of(request: Listing, size: int, token: str) -> Listing:
    """Return the same request for a part of the list."""
    part = type(request)()
    part.CopyFrom(request)
    part.page_size, part.page_token = size, token
    return part


def workspaces(gathered: Gathered[pb.ListWorkspacesResponse]) -> pb.ListWorkspacesResponse:
    """Write what cells have answered."""
    response = pb.ListWorkspacesResponse(
        next_page_token=gathered.next_page_token, unreachable_cell_ids=gathered.unreachable
    )
    for cell_id, answer in gathered.answers:
        response.workspaces.extend(answer.workspaces)
        response.cell_ids.update({workspace.workspace_id: cell_id for workspace in answer.workspaces})
    return response


def snapshots(gathered: Gathered[pb.ListSnapshotsResponse]) -> pb.ListSnapshotsResponse:
    """Write what cells have answered."""
    response = pb.ListSnapshotsResponse(
        next_page_token=gathered.next_page_token, unreachable_cell_ids=gathered.unreachable
    )
    for cell_id, answer in gathered.answers:
        response.snapshots.extend(answer.snapshots)
        response.cell_ids.update({snapshot.snapshot_id: cell_id for snapshot in answer.snapshots})
    return response


def usage(gathered: Gathered[pb.UsageOfWorkspacesResponse]) -> pb.UsageOfWorkspacesResponse:
    """Write what cells have answered."""
    return pb.UsageOfWorkspacesResponse(
        cells=[cell for _, answer in gathered.answers for cell in answer.cells],
        next_page_token=gathered.next_page_token,
        unreachable_cell_ids=gathered.unreachable,
    )


def workspace_id(value: str) -> str:
    """Read a required id. Raises Invalid."""
    with Checks() as check:
        return check.required_id("workspace_id", value)


def result_of(view: ExecutionView) -> tuple[str, str]:
    """Return the commits from which and to which an execution has worked. Raises FailedPrecondition (NO_RESULT)."""
    output = view.output
    if not output.commit_id:
        raise FailedPrecondition(
            "NO_RESULT", f"execution {view.execution_id!r} has no result, or not yet", view.execution_id
        )
    return output.base_commit_id, output.commit_id


def result_expired(execution_id: str, commit_id: str) -> FailedPrecondition:
    """Say that a result is gone from its cell, and what is left of it."""
    return FailedPrecondition(
        "RESULT_EXPIRED",
        f"the result of execution {execution_id!r} is not kept any more (BOATYARD_GIT_RESULT_KEEP_HOURS): what was"
        " stored of its diff is in the execution's output, and what was pushed is where it was pushed to",
        execution_id,
        metadata={"commit_id": commit_id},
    )


def execution(view: ExecutionView) -> pb.Execution:
    """Write an execution."""
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
        message=view.message,
        output=output_message(view.output),
        create_time=timestamp(view.create_time),
    )
    if view.start_time is not None:
        end = view.end_time or datetime.now(UTC)
        message.start_time.CopyFrom(timestamp(view.start_time))
        message.duration.CopyFrom(duration(max(timedelta(), end - view.start_time)))
    if view.end_time is not None:
        message.end_time.CopyFrom(timestamp(view.end_time))
    return message
