"""Converts jobs between messages and values."""

from dataclasses import fields, replace
from datetime import datetime
from typing import Final, TypeVar

from boatyard.gateway.v1 import job_pb2 as pb
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp

from services.agent.wire import AGENT
from services.common.db.paging import Page
from services.common.reasons import with_advice
from services.common.rpc.times import timestamp_to_proto
from services.common.text import lossy
from services.gateway.checkpoints.wire import checkpoint_to_proto
from services.gateway.jobs.kinds import JobKind
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.jobs import JobFilter, JobView, LabelSelector, StageView
from services.gateway.values.principal import Role
from services.gateway.wire.access import readable
from services.gateway.wire.output import output_to_proto
from services.gateway.wire.policy import POLICY, job_policy_to_proto
from services.gateway.wire.validation import Validator
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.states import JobState, StageState

MAX_SELECTORS: Final = 16
MAX_CHOICES: Final = 64
MAX_DOCUMENT_BYTES: Final = 1 << 20  # the most that a hook gets on its standard input
_BRIEF_CHARACTERS: Final = 512

Settings = TypeVar("Settings")

_STATES: Final = {pb.Job.State.Value(f"STATE_{state}"): state for state in JobState}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}
_STAGE_NUMBERS: Final = {state: pb.StageRecord.State.Value(f"STATE_{state}") for state in StageState}


def retry_from_proto(request: pb.RetryJobRequest) -> tuple[str, IdempotencyKey | None]:
    """Read which job to retry. Raises Invalid."""
    with Validator() as check:
        return check.required_id("job_id", request.job_id), check.idempotency_key(request, request.request_id)


def list_jobs_from_proto(request: pb.ListJobsRequest) -> tuple[JobFilter, Page]:
    """Read which jobs to list. Raises Invalid with all violations."""
    with Validator() as check:
        filters = _filter_from_proto(check, request.filter)
        page = check.page(request, request.page_size, request.page_token)
    return filters, page


def watch_jobs_from_proto(request: pb.WatchJobsRequest) -> tuple[JobFilter, int]:
    """Read which jobs to watch, and from which position on. Raises Invalid with all violations."""
    with Validator() as check:
        if request.from_position < 0:
            check.add("from_position", "must not be negative")
        filters = _filter_from_proto(check, request.filter)
    return filters, request.from_position


def kind_to_proto(value: JobKind) -> pb.JobKind:
    """Write a kind."""
    return pb.JobKind(
        kind=value.name,
        description=value.description,
        policy=POLICY.to_proto(value.policy),
        required_fields=value.required_fields,
        required_data=value.required_data,
    )


def job_to_proto(view: JobView, *, brief: bool = False) -> pb.Job:
    """Write a job; `brief`, as in lists, cuts long texts."""
    last_execution = view.executions[-1]
    return pb.Job(
        job_id=view.spec.job_id,
        spec=_spec_to_proto(_brief_spec(view.spec) if brief else view.spec),
        state=_STATE_NUMBERS[view.state],
        reason=view.reason,
        message=with_advice(view.reason, view.message),
        execution_ids=[execution.execution_id for execution in view.executions],
        workspace_id=last_execution.workspace_id,
        cell_id=view.cell_id,
        cancel_requested=view.cancel_requested,
        output=output_to_proto(last_execution.output),
        timeline=[_stage_to_proto(stage) for stage in view.timeline],
        create_time=timestamp_to_proto(view.create_time),
        start_time=None if view.start_time is None else timestamp_to_proto(view.start_time),
        end_time=None if view.end_time is None else timestamp_to_proto(view.end_time),
        revision_number=view.revision,
        checkpoints=(checkpoint_to_proto(checkpoint, brief=True) for checkpoint in view.checkpoints),
    )


def job_document(view: JobView) -> bytes:
    """Write a job as JSON for hooks, as viewers may read it. A prompt that is too long for their input is cut."""
    message = readable(job_to_proto(view), Role.VIEWER)
    while True:
        text = MessageToJson(message, indent=None, ensure_ascii=False).encode()
        if len(text) <= MAX_DOCUMENT_BYTES or not message.spec.prompt:
            return text
        message.spec.prompt = message.spec.prompt[: len(message.spec.prompt) // 2]


def _filter_from_proto(check: Validator, message: pb.JobFilter) -> JobFilter:
    def time(name: str, value: Timestamp) -> datetime | None:
        return check.moment(f"filter.{name}", value) if message.HasField(name) else None  # type: ignore[arg-type]

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
        labels=tuple(
            _selector_from_proto(check, f"filter.labels[{index}]", each) for index, each in enumerate(message.labels)
        ),
        created_after=time("created_after_time", message.created_after_time),
        created_before=time("created_before_time", message.created_before_time),
    )


def _selector_from_proto(check: Validator, path: str, message: pb.LabelSelector) -> LabelSelector:
    matches = {pb.LabelSelector.MATCH_UNSPECIFIED: False, pb.LabelSelector.MATCH_HAS: False}
    lacks = check.choice(f"{path}.match", message.match, matches | {pb.LabelSelector.MATCH_LACKS: True})
    if len(message.values) > MAX_CHOICES:
        check.add(f"{path}.values", f"must be at most {MAX_CHOICES}")
    key = check.line(f"{path}.key", message.key, required=True)
    values = tuple(check.line(f"{path}.values[{index}]", value) for index, value in enumerate(message.values))
    return LabelSelector(key=key, values=values, lacks=lacks)


def _brief_spec(spec: JobSpec) -> JobSpec:
    agent = replace(_brief(spec.agent), engine=_brief(spec.agent.chosen_engine), environment={})
    return replace(_brief(spec), agent=agent, policy=_brief(spec.policy), files=(), data=b"")


def _brief(value: Settings) -> Settings:
    """Cut the long texts among the fields of a dataclass."""
    texts = {each.name: getattr(value, each.name) for each in fields(value)}  # type: ignore[arg-type]
    cut = {name: text[: _BRIEF_CHARACTERS - 1] + "…" for name, text in texts.items() if _is_long(text)}
    return replace(value, **cut)  # type: ignore[type-var]


def _is_long(value: object) -> bool:
    return isinstance(value, str) and len(value) > _BRIEF_CHARACTERS


def _spec_to_proto(spec: JobSpec) -> pb.JobSpec:
    return pb.JobSpec(
        project_id=spec.project_id,
        kind=spec.kind,
        priority=spec.priority,
        prompt=spec.prompt,
        repository_id=spec.repository_id,
        revision=lossy(spec.revision),
        snapshot_id=spec.snapshot_id,
        branch=lossy(spec.branch),
        worker_id=spec.worker_id,
        work_item_id=spec.work_item_id,
        template_id=spec.template_id,
        agent=AGENT.to_proto(spec.agent),
        policy=job_policy_to_proto(spec.policy),
        labels=spec.labels,
        not_before_time=None if spec.not_before is None else timestamp_to_proto(spec.not_before),
        files=[pb.InputFile(name=file.name, size_bytes=file.size) for file in spec.files],
        data=lossy(spec.data),
    )


def _stage_to_proto(stage: StageView) -> pb.StageRecord:
    return pb.StageRecord(
        name=stage.name,
        state=_STAGE_NUMBERS[stage.state],
        message=stage.message,
        prompt_addition=stage.added.prompt_addition,
        labels=stage.added.labels,
        hook_id=stage.hook_id,
        start_time=timestamp_to_proto(stage.start_time),
        end_time=None if stage.end_time is None else timestamp_to_proto(stage.end_time),
    )
