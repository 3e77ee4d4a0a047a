"""Converts between the node services' messages and our values."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from boatyard.agent.v1 import sandbox_pb2 as sandbox_pb
from boatyard.execution.v1 import event_pb2 as event_pb
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.git.v1 import git_pb2 as git_pb
from boatyard.workspace.v1 import layout_pb2 as layout_pb
from boatyard.workspace.v1 import workspace_pb2 as workspace_pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.agent.wire import AGENT
from services.common.errors import Invalid
from services.common.text import bytes_of, bytes_of_list, lossy
from services.lifecycle.model.job_context import Remote
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import (
    Base,
    Launch,
    Layout,
    ModelUse,
    ResourceUsage,
    ResultCommit,
    Run,
    Snapshot,
)
from services.lifecycle.model.output import FileChange
from services.lifecycle.model.states import ExecutionState
from services.sandbox.spec import Tier

EMAIL: Final = "noreply@boatyard.dev"

_CHANGES = {
    git_pb.ChangedFile.CHANGE_ADDED: "A",
    git_pb.ChangedFile.CHANGE_MODIFIED: "M",
    git_pb.ChangedFile.CHANGE_DELETED: "D",
    git_pb.ChangedFile.CHANGE_RENAMED: "R",
    git_pb.ChangedFile.CHANGE_TYPE: "T",
}


def spec_to_proto(value: Launch, job_id: str) -> execution_pb.ExecutionSpec:
    """Write the specification of an execution."""
    return execution_pb.ExecutionSpec(
        purpose=execution_pb.ExecutionSpec.Purpose.Value(f"PURPOSE_{value.purpose}"),
        job_id=job_id,
        layout=layout_to_proto(value.layout),
        read_only_paths=texts_to_proto("spec.read_only_paths", value.read_only_paths),
        agent=AGENT.to_proto(value.agent),
        prompt=text_to_proto("spec.prompt", value.prompt),
        environment={name: text_to_proto("spec.environment", text) for name, text in value.environment.items()},
    )


def run_from_proto(message: execution_pb.NodeExecution) -> Run:
    """Read an execution."""
    return Run(
        execution_id=message.execution_id,
        state=ExecutionState(execution_pb.NodeExecution.State.Name(message.state).removeprefix("STATE_")),
        reason=message.reason,
        message=message.message,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        start_time=_time_from_proto(message.start_time) if message.HasField("start_time") else None,
        end_time=_time_from_proto(message.end_time) if message.HasField("end_time") else None,
        last_sequence=message.last_sequence,
        output_bytes=message.output_bytes,
        model_use=_model_use_from_proto(message.model_use) if message.HasField("model_use") else None,
        vitals=_usage_from_proto(message.vitals) if message.HasField("vitals") else None,
    )


def _usage_from_proto(message: event_pb.Vitals) -> ResourceUsage:
    return ResourceUsage(message.cpu_seconds, message.memory_peak_bytes)


def _model_use_from_proto(message: execution_pb.ModelUse) -> ModelUse:
    return ModelUse(
        tokens=message.tokens,
        cost_usd=message.cost_usd if message.HasField("cost_usd") else None,
        turns=message.turns,
        tool_calls=message.tool_calls,
        last_words=message.last_words,
    )


def workspace_labels_to_proto(spec: JobSpec) -> workspace_pb.WorkspaceLabels:
    """Write what a workspace is for."""
    return workspace_pb.WorkspaceLabels(
        project_id=spec.project_id,
        job_id=spec.job_id,
        worker_id=spec.worker_id,
        work_item_id=spec.work_item_id,
        repository_id=spec.repository_id,
        branch=lossy(spec.branch),
    )


def layout_to_proto(value: Layout) -> layout_pb.Layout:
    """Write a layout."""
    if value.path:
        return layout_pb.Layout(path=text_to_proto("layout.path", value.path))
    layers = layout_pb.Layers(
        lowers=texts_to_proto("layout.layers.lowers", value.lowers),
        upper=text_to_proto("layout.layers.upper", value.upper),
        work=text_to_proto("layout.layers.work", value.work),
        mounted_path=text_to_proto("layout.layers.mounted_path", value.mounted_path),
    )
    return layout_pb.Layout(layers=layers)


def layout_from_proto(message: layout_pb.Layout) -> Layout:
    """Read a layout."""
    layers = message.layers
    return Layout(
        path=message.path.encode(),
        lowers=texts_from_proto(layers.lowers),
        upper=layers.upper.encode(),
        work=layers.work.encode(),
        mounted_path=layers.mounted_path.encode(),
    )


def visibility_to_proto(tier: Tier) -> "workspace_pb.Visibility.ValueType":
    """Write who must be able to see a workspace's files: a container engine sees what the host sees."""
    return workspace_pb.VISIBILITY_SANDBOXES if tier is Tier.BUBBLEWRAP else workspace_pb.VISIBILITY_HOST


def working_tree_to_proto(value: Layout, base: Base, tier: Tier) -> git_pb.WorkingTree:
    """Write a tree that an agent may have written. No image has our git, so for a container it runs in bubblewrap."""
    own = Tier.BUBBLEWRAP if tier is Tier.CONTAINER else tier
    return git_pb.WorkingTree(
        layout=layout_to_proto(value),
        read_only_paths=texts_to_proto("tree.read_only_paths", base.read_only_paths),
        sandbox_tier=tier_to_proto(own),
    )


def remote_to_proto(value: Remote) -> git_pb.Remote:
    """Write a remote, with its token."""
    return git_pb.Remote(repository_id=value.repository_id, url=value.url, token=value.token)


def base_from_proto(message: git_pb.Base) -> Base:
    """Read a base."""
    return Base(
        commit_id=message.commit_id,
        layers=texts_from_proto(message.layers),
        read_only_paths=texts_from_proto(message.read_only_paths),
        pins_path=message.pins_path.encode(),
    )


def result_from_proto(message: git_pb.TakeResultResponse) -> ResultCommit:
    """Read a result that was taken."""
    lost = bytes_of_list(message.lost_repositories, message.raw_lost_repositories)
    return ResultCommit(message.commit_id, message.changed, lost)


def snapshot_from_proto(message: git_pb.Snapshot) -> Snapshot:
    """Read a snapshot."""
    return Snapshot(message.snapshot_id, message.repository_id, message.base_commit_id, message.commit_id)


def file_change_from_proto(message: git_pb.ChangedFile) -> FileChange:
    """Read a changed file."""
    return FileChange(
        path=bytes_of(message.path, message.raw_path),
        change=_CHANGES.get(message.change, "M"),
        old_path=bytes_of(message.old_path, message.raw_old_path),
        additions=message.additions if message.HasField("additions") else None,
        deletions=message.deletions if message.HasField("deletions") else None,
    )


def signature_to_proto(name: str, time: datetime) -> git_pb.Signature:
    """Write who made a commit, and when, to the second."""
    return git_pb.Signature(name=name, email=EMAIL, time=Timestamp(seconds=int(time.timestamp())))


def tier_to_proto(tier: Tier) -> "sandbox_pb.SandboxTier.ValueType":
    """Write a tier."""
    return sandbox_pb.SandboxTier.Value(f"SANDBOX_TIER_{tier.upper()}")


def text_to_proto(field: str, value: bytes) -> str:
    """Write what a node takes as text. Raises Invalid when it is not UTF-8, as the node would for other bad input."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Invalid([(field, "must be UTF-8")]) from None


def texts_to_proto(field: str, values: Iterable[bytes]) -> list[str]:
    """Write a list of what a node takes as text. Raises Invalid when any of it is not UTF-8."""
    return [text_to_proto(f"{field}[{index}]", value) for index, value in enumerate(values)]


def texts_from_proto(values: Iterable[str]) -> tuple[bytes, ...]:
    """Read a list of paths on the machine."""
    return tuple(value.encode() for value in values)


def duration_to_proto(seconds: float) -> Duration:
    """Write a duration."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def _time_from_proto(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
