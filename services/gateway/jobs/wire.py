"""Jobs between messages and values."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from boatyard.gateway.v1 import job_pb2 as pb
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.db.paging import Key, Page
from services.gateway.auth.answer_wire import readable
from services.gateway.auth.model import Role
from services.gateway.catalog.agent_wire import agent_message, policy_message
from services.gateway.checkpoints.wire import checkpoint
from services.gateway.jobs.kinds import JobKind
from services.gateway.jobs.model import JobFilter, JobView, LabelSelector, StageView
from services.gateway.jobs.output_wire import output
from services.gateway.jobs.settled import agent_layer, policy_layer
from services.gateway.requests import Request
from services.gateway.wire import Checks, moment, timestamp
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.states import JobState, StageState

MAX_SELECTORS: Final = 16
MAX_CHOICES: Final = 64
MAX_DOCUMENT_BYTES: Final = 1 << 20  # what a hook gets on its standard input
_BRIEF_CHARACTERS: Final = 512
_LIST_BYTES: Final = 2 << 20  # of a message's 4 MiB

_STATES: Final = {pb.Job.State.Value(f"STATE_{state}"): state for state in JobState}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}
_STAGE_NUMBERS: Final = {state: pb.StageRecord.State.Value(f"STATE_{state}") for state in StageState}

View = TypeVar("View")
Written = TypeVar("Written", bound=Message)


def job_id(value: str) -> str:
    """Read a required id. Raises Invalid."""
    with Checks() as check:
        return check.required_id("job_id", value)


def retried(request: pb.RetryJobRequest) -> tuple[str, Request | None]:
    """Read which job to try again. Raises Invalid."""
    with Checks() as check:
        return check.required_id("job_id", request.job_id), check.request(request, request.request_id)


def wanted(request: pb.ListJobsRequest) -> tuple[JobFilter, Page]:
    """Read which jobs to list. Raises Invalid with all violations."""
    with Checks() as check:
        which, page = _filter(check, request.filter), check.page(request, request.page_size, request.page_token)
    return which, page


def watched(request: pb.WatchJobsRequest) -> tuple[JobFilter, int]:
    """Read which jobs to watch, and from where on. Raises Invalid with all violations."""
    with Checks() as check:
        if request.from_position < 0:
            check.add("from_position", "must not be negative")
        which = _filter(check, request.filter)
    return which, request.from_position


def kinds_wanted(request: pb.ListJobKindsRequest) -> Page:
    """Read which page of kinds to list. Raises Invalid with all violations."""
    with Checks() as check:
        return check.page(request, request.page_size, request.page_token)


def kind(value: JobKind) -> pb.JobKind:
    """Write a kind."""
    return pb.JobKind(
        kind=value.name,
        description=value.description,
        policy=policy_message(value.policy),
        required_fields=value.required_fields,
        required_data=value.required_data,
    )


def job(view: JobView, *, brief: bool = False) -> pb.Job:
    """Write a job; in brief with long texts cut, as lists have it."""
    last = view.executions[-1]
    return pb.Job(
        job_id=view.order.job_id,
        spec=_spec(_briefly(view.order) if brief else view.order),
        state=_STATE_NUMBERS[view.state],
        reason=view.reason,
        message=view.message,
        execution_ids=[execution.execution_id for execution in view.executions],
        workspace_id=last.workspace_id,
        cell_id=view.cell_id,
        cancel_requested=view.cancel_requested,
        output=output(last.output),
        timeline=[_stage(stage) for stage in view.timeline],
        create_time=timestamp(view.create_time),
        start_time=None if view.start_time is None else timestamp(view.start_time),
        end_time=None if view.end_time is None else timestamp(view.end_time),
        revision_number=view.revision,
        checkpoints=(checkpoint(one, brief=True) for one in view.checkpoints),
    )


def document(view: JobView) -> bytes:
    """Write a job as JSON for hooks, as viewers read it; of a prompt that is too long for their input the beginning."""
    message = readable(job(view), Role.VIEWER)
    while True:
        text = MessageToJson(message, indent=None, ensure_ascii=False).encode()
        if len(text) <= MAX_DOCUMENT_BYTES or not message.spec.prompt:
            return text
        message.spec.prompt = message.spec.prompt[: len(message.spec.prompt) // 2]


def fitted(
    views: Sequence[View], page: Page, write: Callable[[View], Written], key: Callable[[View], Key]
) -> tuple[list[Written], str]:
    """Write a page of a list, shorter than asked for where it would not fit into one answer; and the next token."""
    messages: list[Written] = []
    size = 0
    for view in views[: page.size]:
        messages.append(write(view))
        size += messages[-1].ByteSize()
        if size > _LIST_BYTES:
            break
    _, token = replace(page, size=max(1, len(messages))).cut(views, key)
    return messages, token


def _filter(check: Checks, message: pb.JobFilter) -> JobFilter:
    def time(name: str, value: Timestamp) -> datetime | None:
        return moment(check, f"filter.{name}", value) if message.HasField(name) else None  # type: ignore[arg-type]

    if len(message.kinds) > MAX_CHOICES:
        check.add("filter.kinds", f"must be at most {MAX_CHOICES}")
    if len(message.labels) > MAX_SELECTORS:
        check.add("filter.labels", f"must be at most {MAX_SELECTORS}")

    return JobFilter(
        project_id=check.optional_id("filter.project_id", message.project_id),
        states=check.choices("filter.states", message.states, _STATES),
        kinds=frozenset(check.required_id(f"filter.kinds[{index}]", each) for index, each in enumerate(message.kinds)),
        worker_id=check.optional_id("filter.worker_id", message.worker_id),
        work_item_id=check.optional_id("filter.work_item_id", message.work_item_id),
        labels=tuple(_selector(check, f"filter.labels[{index}]", each) for index, each in enumerate(message.labels)),
        created_after=time("created_after_time", message.created_after_time),
        created_before=time("created_before_time", message.created_before_time),
    )


def _selector(check: Checks, path: str, message: pb.LabelSelector) -> LabelSelector:
    matches = {pb.LabelSelector.MATCH_UNSPECIFIED: False, pb.LabelSelector.MATCH_HAS: False}
    lacks = check.choice(f"{path}.match", message.match, matches | {pb.LabelSelector.MATCH_LACKS: True})
    if len(message.values) > MAX_CHOICES:
        check.add(f"{path}.values", f"must be at most {MAX_CHOICES}")
    key = check.line(f"{path}.key", message.key, required=True)
    values = tuple(check.line(f"{path}.values[{index}]", value) for index, value in enumerate(message.values))
    return LabelSelector(key=key, values=values, lacks=lacks)


def _briefly(order: JobSpec) -> JobSpec:
    def cut(text: str) -> str:
        return text if len(text) <= _BRIEF_CHARACTERS else text[: _BRIEF_CHARACTERS - 1] + "…"

    agent = replace(
        order.agent,
        command=cut(order.agent.command),
        system_prompt=cut(order.agent.system_prompt),
        environment={},
    )
    policy = replace(order.policy, verify_command=cut(order.policy.verify_command))
    return replace(order, prompt=cut(order.prompt), agent=agent, policy=policy, files=(), data=b"")


def _spec(order: JobSpec) -> pb.JobSpec:
    return pb.JobSpec(
        project_id=order.project_id,
        kind=order.kind,
        priority=order.priority,
        prompt=order.prompt,
        repository_id=order.repository_id,
        revision=order.revision,
        snapshot_id=order.snapshot_id,
        branch=order.branch,
        worker_id=order.worker_id,
        work_item_id=order.work_item_id,
        template_id=order.template_id,
        agent=agent_message(agent_layer(order.agent)),
        policy=policy_message(policy_layer(order.policy)),
        labels=order.labels,
        not_before_time=None if order.not_before is None else timestamp(order.not_before),
        files=[pb.InputFile(name=file.name, size_bytes=file.size) for file in order.files],
        data=order.data,
    )


def _stage(stage: StageView) -> pb.StageRecord:
    return pb.StageRecord(
        name=stage.name,
        state=_STAGE_NUMBERS[stage.state],
        message=stage.message,
        prompt_addition=stage.added.prompt_addition,
        labels=stage.added.labels,
        start_time=timestamp(stage.start_time),
        end_time=None if stage.end_time is None else timestamp(stage.end_time),
    )
