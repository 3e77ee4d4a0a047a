"""Converts between the node services' messages and our values."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from boatyard.agent.v1 import sandbox_pb2 as sandbox_pb
from boatyard.execution.v1 import event_pb2 as event_pb
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.git.v1 import git_pb2 as git_pb
from boatyard.readiness.v1 import readiness_pb2 as readiness_pb
from boatyard.workspace.v1 import layout_pb2 as layout_pb
from boatyard.workspace.v1 import workspace_pb2 as workspace_pb
from google.protobuf.timestamp_pb2 import Timestamp

from services.agent.images import ContainerImages
from services.agent.wire import AGENT, PROVIDER, replay_to_proto
from services.common.errors import Invalid
from services.common.rpc.mapper import Mapper
from services.common.text import lossy
from services.lifecycle.model.authors import EMAIL
from services.lifecycle.model.condition import Trouble
from services.lifecycle.model.job_context import Remote
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.node_work import (
    Base,
    Launch,
    Layout,
    ResourceUsage,
    ResultCommit,
    Run,
    Snapshot,
)
from services.lifecycle.model.output import Artifact, FileChange, OmittedArtifact
from services.sandbox.spec import Tier

TROUBLE: Final = Mapper(Trouble, readiness_pb.Trouble)
IMAGES: Final = Mapper(ContainerImages, execution_pb.ContainerImages)
REMOTE: Final = Mapper(Remote, git_pb.Remote)
BASE: Final = Mapper(Base, git_pb.Base, by_hand={"branch", "branch_is_lossy", "notes"})
RESULT: Final = Mapper(
    ResultCommit, git_pb.TakeResultResponse, by_hand={"changed", "lost_repositories", "raw_lost_repositories"}
)
FILE_CHANGE: Final = Mapper(FileChange, git_pb.ChangedFile)
ARTIFACT: Final = Mapper(Artifact, git_pb.Artifact)
OMITTED_ARTIFACT: Final = Mapper(OmittedArtifact, git_pb.OmittedArtifact)
SNAPSHOT: Final = Mapper(Snapshot, git_pb.Snapshot, by_hand={"message", "create_time", "expire_time"})
_RUN: Final = Mapper(
    Run,
    execution_pb.NodeExecution,
    by_hand={
        *("vitals", "purpose", "job_id", "sandbox_tier", "create_time"),
        *("end_verified_by", "pending_permissions", "events_trimmed"),
        "host_uid",
    },
)
_RESOURCE_USAGE: Final = Mapper(
    ResourceUsage, event_pb.Vitals, by_hand={"memory_bytes", "processes", "read_bytes", "written_bytes"}
)


def agents_from_proto(presets: Iterable[execution_pb.AgentPreset]) -> dict[str, str] | None:
    """Read which agents a machine knows: see Condition.agents. None of a version that tells of none."""
    return {preset.name: "" if preset.program else preset.complaint for preset in presets} or None


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
        redacted=value.redacted,
        providers=map(PROVIDER.to_proto, value.providers),
        reserves_model_use=value.reserves_model_use,
        heeds_model_gates=value.heeds_model_gates,
        replay=None if value.replay is None else replay_to_proto(value.replay, value.recording),
        home_path=text_to_proto("spec.home_path", value.layout.home) if value.has_home else "",
        resumes=value.resumes,
    )


def run_from_proto(message: execution_pb.NodeExecution) -> Run:
    """Read an execution."""
    vitals = _RESOURCE_USAGE.from_proto(message.vitals) if message.HasField("vitals") else None
    return _RUN.from_proto(message, vitals=vitals)


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


def home_to_proto(attempt: int) -> "workspace_pb.Home.ValueType":
    """Write the HOME of the agents of a job's attempt, counted from 1; 0: there is none."""
    if not attempt:
        return workspace_pb.HOME_UNSPECIFIED
    return workspace_pb.HOME_NEW if attempt == 1 else workspace_pb.HOME_OF_JOB


def visibility_to_proto(tier: Tier) -> "workspace_pb.Visibility.ValueType":
    """Write who must be able to see a workspace's files: a container engine sees what the host sees."""
    return workspace_pb.VISIBILITY_SANDBOXES if tier is Tier.BUBBLEWRAP else workspace_pb.VISIBILITY_HOST


def working_tree_to_proto(value: Layout, base: Base | None, tier: Tier) -> git_pb.WorkingTree:
    """Write a tree that an agent may have written. No image has our git, so for a container it runs in bubblewrap."""
    own = Tier.BUBBLEWRAP if tier is Tier.CONTAINER else tier
    return git_pb.WorkingTree(
        layout=layout_to_proto(value),
        read_only_paths=() if base is None else texts_to_proto("tree.read_only_paths", base.read_only_paths),
        sandbox_tier=tier_to_proto(own),
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
