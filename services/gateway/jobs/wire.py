"""Converts jobs between messages and values."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final, TypeVar

from boatyard.gateway.v1 import floor_pb2
from boatyard.gateway.v1 import job_pb2 as pb
from google.protobuf.json_format import MessageToJson

from services.agent.usage import ModelUsageSum, by_model
from services.agent.wire import AGENT, MODEL_USAGE, replay_to_proto
from services.common import display
from services.common.reasons import with_advice
from services.common.rpc.mapper import Mapper
from services.common.rpc.times import timestamp_to_proto
from services.common.text import lossy
from services.gateway.checkpoints.wire import checkpoint_to_proto
from services.gateway.jobs.kinds import JobKind
from services.gateway.values.jobs import JobFilter, JobView, LabelSelector, StageView, Waiting
from services.gateway.values.principal import Role
from services.gateway.wire.access import readable
from services.gateway.wire.budgets import use_to_proto
from services.gateway.wire.output import output_to_proto
from services.gateway.wire.policy import POLICY
from services.lifecycle.model.floor import BindingFloor
from services.lifecycle.model.job_spec import JobSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

MAX_DOCUMENT_BYTES: Final = 1 << 20  # the most that a hook gets on its standard input
_BRIEF_CHARACTERS: Final = 512
_STAGE_CHARACTERS: Final = 1024

_FILTER: Final = Mapper(JobFilter, pb.JobFilter, by_hand={"visible", "labels"})
_KIND: Final = Mapper(JobKind, pb.JobKind, by_hand={"name", "kind"})
_FLOOR: Final = Mapper(BindingFloor, floor_pb2.BindingFloor)
_WAITING: Final = Mapper(Waiting, pb.Waiting)
_STAGE: Final = Mapper(StageView, pb.StageRecord, by_hand={"added", "prompt_addition", "labels"})
_JOB: Final = Mapper(
    JobView,
    pb.Job,
    by_hand={
        *("job_id", "spec", "message", "executions", "execution_ids", "workspace_id"),
        *("output", "timeline", "revision", "revision_number", "checkpoints", "floors", "submitters", "steered_by"),
        *("waiting_for", "budget_use", "usage"),
    },
)


def filter_from_proto(message: pb.JobFilter) -> JobFilter:
    """Read which jobs are meant."""
    return _FILTER.from_proto(message, labels=tuple(map(label_selector_from_proto, message.labels)))


def label_selector_from_proto(message: pb.LabelSelector) -> LabelSelector:
    """Read a condition on labels."""
    lacks = message.match == pb.LabelSelector.MATCH_LACKS
    return LabelSelector(key=message.key, values=tuple(message.values), lacks=lacks)


def kind_to_proto(value: JobKind) -> pb.JobKind:
    """Write a kind."""
    return _KIND.to_proto(value, kind=value.name)


def job_to_proto(view: JobView, *, brief: bool = False) -> pb.Job:
    """Write a job; `brief`, as in lists, cuts long texts."""
    last_execution = view.executions[-1]
    return _JOB.to_proto(
        view,
        job_id=view.spec.job_id,
        spec=_spec_to_proto(_brief_spec(view.spec) if brief else view.spec),
        message=display.lines(with_advice(view.reason, view.message)),
        execution_ids=[execution.execution_id for execution in view.executions],
        workspace_id=last_execution.workspace_id,
        output=output_to_proto(last_execution.output),
        timeline=map(_stage_to_proto, view.timeline),
        revision_number=view.revision,
        checkpoints=(checkpoint_to_proto(checkpoint, brief=True) for checkpoint in view.checkpoints),
        floors=() if brief else map(_FLOOR.to_proto, view.spec.floors),
        submitters=map(display.one_line, view.spec.submitters),
        steered_by=map(display.one_line, view.spec.steered_by),
        usage=map(MODEL_USAGE.to_proto, by_model(_usage_of(view))),
        waiting_for=None if view.waiting_for is None else _WAITING.to_proto(view.waiting_for),
        budget_use=view.budget_use and use_to_proto(view.budget_use, view.spec.policy.budget),
    )


def _usage_of(view: JobView) -> Iterator[ModelUsageSum]:
    return (row for execution in view.executions for row in execution.output.known_usage)


def job_document(view: JobView) -> bytes:
    """Write a job as JSON for hooks, as viewers may read it. A prompt that is too long for their input is cut."""
    message = readable(job_to_proto(view), Role.VIEWER)
    while True:
        text = display.in_json(MessageToJson(message, indent=None, ensure_ascii=False)).encode()
        if len(text) <= MAX_DOCUMENT_BYTES or not message.spec.prompt:
            return text
        message.spec.prompt = message.spec.prompt[: len(message.spec.prompt) // 2]


def _brief_spec(spec: JobSpec) -> JobSpec:
    agent = replace(_brief(spec.agent), engine=_brief(spec.agent.chosen_engine), environment={})
    return replace(_brief(spec), agent=agent, policy=_brief(spec.policy), files=(), data=b"")


def _brief(value: Settings) -> Settings:
    """Cut the long texts among the fields of a dataclass."""
    texts = {each.name: getattr(value, each.name) for each in fields(value)}
    cut = {name: text[: _BRIEF_CHARACTERS - 1] + "…" for name, text in texts.items() if _is_long(text)}
    return replace(value, **cut)


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
        policy=POLICY.to_proto(spec.policy),
        labels=spec.labels,
        not_before_time=None if spec.not_before is None else timestamp_to_proto(spec.not_before),
        files=[pb.InputFile(name=file.name, size_bytes=file.size) for file in spec.files],
        data=lossy(spec.data),
        replay=None if spec.replay is None else replay_to_proto(spec.replay.matching, size=spec.replay.size),
        waive_floors=spec.waive_floors,
    )


def _stage_to_proto(stage: StageView) -> pb.StageRecord:
    return _STAGE.to_proto(
        stage,
        message=display.one_line(stage.message)[:_STAGE_CHARACTERS],
        prompt_addition=stage.added.prompt_addition,
        labels=stage.added.labels,
    )
