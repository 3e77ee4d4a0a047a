"""Jobs between messages and values."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeVar

from boatyard.gateway.v1 import job_pb2 as pb
from boatyard.gateway.v1 import output_pb2
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from services.common.db.paging import Key, Page
from services.gateway.catalog.agent_wire import agent_message, agent_of, policy_message, policy_of
from services.gateway.catalog.model import DEFAULT_PROJECT_ID
from services.gateway.jobs.admission import MAX_PROMPT_BYTES, Draft
from services.gateway.jobs.model import JobFilter, JobView, StageView
from services.gateway.jobs.settled import agent_layer, policy_layer
from services.gateway.requests import Request
from services.gateway.wire import Checks, duration, timestamp
from services.lifecycle.model.order import Order
from services.lifecycle.model.output import FileChange, Output, Verification
from services.lifecycle.model.states import JobState, StageState

KINDS: Final = ("task",)
MAX_PRIORITY: Final = 100
MAX_LABELS: Final = 64
MAX_LABEL_CHARACTERS: Final = 63
MAX_DOCUMENT_BYTES: Final = 1 << 20  # what a hook gets on its standard input
_BRIEF_CHARACTERS: Final = 512
_LIST_BYTES: Final = 2 << 20  # of a message's 4 MiB

_STATES: Final = {pb.Job.State.Value(f"STATE_{state}"): state for state in JobState}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}
_STAGE_NUMBERS: Final = {state: pb.StageRecord.State.Value(f"STATE_{state}") for state in StageState}
# What git refuses anywhere in a branch's name (git-check-ref-format); what it refuses as a whole is in `_branch`.
_BAD_BRANCH: Final = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|\.$|/$")

View = TypeVar("View")
Written = TypeVar("Written", bound=Message)


def new_job(request: pb.CreateJobRequest) -> tuple[Draft, Request | None]:
    """Read what is wanted. Raises Invalid with all violations."""
    spec = request.spec
    with Checks() as check:
        check.part(request, "spec")
        if spec.kind not in {"", *KINDS}:
            check.add("spec.kind", f"must be {' or '.join(KINDS)}")
        if not -MAX_PRIORITY <= spec.priority <= MAX_PRIORITY:
            check.add("spec.priority", f"must be from -{MAX_PRIORITY} to {MAX_PRIORITY}")
        if len(spec.labels) > MAX_LABELS:
            check.add("spec.labels", f"must be at most {MAX_LABELS}")
        for name, value in spec.labels.items():
            if not name or max(len(name), len(value)) > MAX_LABEL_CHARACTERS:
                check.add(
                    "spec.labels", f"must have keys of 1 to {MAX_LABEL_CHARACTERS} characters, and values no longer"
                )
        if spec.revision and spec.snapshot_id:
            check.add("spec.snapshot_id", "takes the place of `revision`: one of them alone")
        draft = Draft(
            project_id=check.optional_id("spec.project_id", spec.project_id) or DEFAULT_PROJECT_ID,
            kind=spec.kind or KINDS[0],
            priority=spec.priority,
            prompt=check.text("spec.prompt", spec.prompt, MAX_PROMPT_BYTES, required=True),
            repository_id=check.optional_id("spec.repository_id", spec.repository_id),
            revision=check.revision("spec.revision", spec.revision),
            snapshot_id=check.optional_id("spec.snapshot_id", spec.snapshot_id),
            branch=_branch(check, "spec.branch", spec.branch),
            worker_id=check.optional_id("spec.worker_id", spec.worker_id),
            work_item_id=check.optional_id("spec.work_item_id", spec.work_item_id),
            template_id=check.optional_id("spec.template_id", spec.template_id),
            agent=agent_of(check, "spec.agent", spec.agent),
            policy=policy_of(check, "spec.policy", spec.policy),
            labels=dict(spec.labels),
            path="spec.",
        )
        once = check.request(request, request.request_id)
    return draft, once


def job_id(value: str) -> str:
    """Read a required id. Raises Invalid."""
    with Checks() as check:
        return check.required_id("job_id", value)


def wanted(request: pb.ListJobsRequest) -> tuple[JobFilter, Page]:
    """Read which jobs to list. Raises Invalid with all violations."""
    with Checks() as check:
        which = JobFilter(
            project_id=check.optional_id("project_id", request.project_id),
            states=check.choices("states", request.states, _STATES),
            kind=check.optional_id("kind", request.kind),
            worker_id=check.optional_id("worker_id", request.worker_id),
            work_item_id=check.optional_id("work_item_id", request.work_item_id),
        )
        page = check.page(request, request.page_size, request.page_token)
    return which, page


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
    )


def output(value: Output) -> output_pb2.Output:
    """Write what came out."""
    changes = value.changes
    message = output_pb2.Output(
        summary=value.summary,
        files_changed=[_file(change) for change in changes.files],
        total_files_changed=changes.total_files,
        verification=None if value.verification is None else _verification(value.verification),
        base_commit_id=value.base_commit_id,
        commit_id=value.commit_id,
        snapshot_id=value.snapshot_id,
        branch=value.branch,
        pushed=value.pushed,
        diff=changes.diff,
        diff_truncated=changes.diff_truncated,
        log_tail=value.log_tail,
        output_bytes=value.output_bytes,
    )
    if value.exit_code is not None:
        message.exit_code = value.exit_code
    if value.signal is not None:
        message.signal = value.signal
    for name in ("tokens_used", "cost_usd", "tool_calls", "turns", "cpu_seconds", "memory_peak_bytes"):
        if (number := getattr(value, name)) is not None:
            setattr(message, name, number)
    return message


def document(view: JobView) -> bytes:
    """Write a job as JSON for hooks; of a prompt that is too long for their standard input the beginning."""
    message = job(view)
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


def _branch(check: Checks, field: str, value: bytes) -> bytes:
    if value and (
        len(value) > 244
        or value.startswith((b"-", b"/", b"."))
        or value in {b"@", b"HEAD"}
        or _BAD_BRANCH.search(value)
    ):
        check.add(field, "must be a name that git allows for a branch, of at most 244 bytes")
    return value


def _briefly(order: Order) -> Order:
    def cut(text: str) -> str:
        return text if len(text) <= _BRIEF_CHARACTERS else text[: _BRIEF_CHARACTERS - 1] + "…"

    agent = replace(
        order.agent,
        command=cut(order.agent.command),
        system_prompt=cut(order.agent.system_prompt),
        environment={},
    )
    policy = replace(order.policy, verify_command=cut(order.policy.verify_command))
    return replace(order, prompt=cut(order.prompt), agent=agent, policy=policy)


def _spec(order: Order) -> pb.JobSpec:
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
    )


def _stage(stage: StageView) -> pb.StageRecord:
    return pb.StageRecord(
        name=stage.name,
        state=_STAGE_NUMBERS[stage.state],
        message=stage.message,
        start_time=timestamp(stage.start_time),
        end_time=None if stage.end_time is None else timestamp(stage.end_time),
    )


def _file(change: FileChange) -> output_pb2.FileChange:
    return output_pb2.FileChange(
        path=change.path,
        change=change.change,
        old_path=change.old_path,
        additions=change.additions,
        deletions=change.deletions,
    )


def _verification(value: Verification) -> output_pb2.Verification:
    return output_pb2.Verification(
        execution_id=value.execution_id,
        passed=value.passed,
        exit_code=value.exit_code,
        reason=value.reason,
        duration=duration(timedelta(seconds=value.duration)),
    )
