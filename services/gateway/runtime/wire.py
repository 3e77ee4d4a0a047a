"""Converts executions, and what is asked about them, between messages and values."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from boatyard.execution.v1 import event_pb2, execution_pb2
from boatyard.gateway.v1 import job_pb2
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.workspace.v1 import workspace_pb2
from google.protobuf.message import Message

from services.agent.settings import AgentSettings
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition
from services.common.reasons import with_advice
from services.common.rpc.times import duration_to_proto, timestamp_to_proto
from services.common.text import lossy
from services.gateway import scope
from services.gateway.jobs.submission import JobSubmission
from services.gateway.runtime.relay import ExecutionUpdate
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.jobs import ExecutionFilter, ExecutionView
from services.gateway.wire.output import output_to_proto
from services.gateway.wire.validation import Validator, required_id
from services.lifecycle.model.job_spec import MAX_PROMPT_BYTES
from services.lifecycle.model.states import ExecutionState, JobState, Purpose

_STATES: Final = {pb.Execution.State.Value(f"STATE_{state}"): state for state in ExecutionState}
_KINDS: Final = {number: name.removeprefix("EVENT_KIND_") for name, number in event_pb2.EventKind.items() if number}
_MAX_TIMEOUT: Final = timedelta(days=7)
MAX_MESSAGE_BYTES: Final = 64 << 10
MAX_REASON_BYTES: Final = 4 << 10
Converted = TypeVar("Converted", bound=Message)
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}
_JOB_STATES: Final = {state: job_pb2.Job.State.Value(f"STATE_{state}") for state in JobState}
_PURPOSES: Final = {execution_pb2.ExecutionSpec.Purpose.Value(f"PURPOSE_{purpose}"): purpose for purpose in Purpose}
_PURPOSE_NUMBERS: Final = {purpose: number for number, purpose in _PURPOSES.items()}


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
            purposes=check.choices("purposes", request.purposes, _PURPOSES) or frozenset({Purpose.AGENT}),
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


def check_list_snapshots(request: pb.ListSnapshotsRequest) -> None:
    """Check that a caller who may see only some projects names a repository. Raises Invalid."""
    with Validator() as check:
        check.optional_id("repository_id", request.repository_id)
        if scope.visible() is not None and not request.repository_id:
            check.add("repository_id", "is required: the token is for some projects only")


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
    message = pb.Execution(
        execution_id=view.execution_id,
        job_id=view.job_id,
        project_id=view.project_id,
        worker_id=view.worker_id,
        work_item_id=view.work_item_id,
        template_id=view.template_id,
        workspace_id=view.workspace_id,
        branch=lossy(view.branch),
        job_state=_JOB_STATES[view.job_state],
        job_reason=view.job_reason,
        purpose=_PURPOSE_NUMBERS[view.purpose],
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
