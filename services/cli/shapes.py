"""What the command line prints as JSON: the gateway's messages in the words that scripts rely on (DESIGN §9).

What is not known is null, never 0 or "". Times are RFC 3339 in UTC. Paths and branches are bytes that need not be
UTF-8: a byte that is not stands as a lone surrogate U+DC80 to U+DCFF, as Python's `surrogateescape` has it.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from boatyard.execution.v1 import event_pb2, sandbox_pb2
from boatyard.execution.v1.execution_pb2 import ExecutionSpec
from boatyard.gateway.v1 import admin_pb2, checkpoint_pb2, job_pb2, output_pb2, runtime_pb2
from boatyard.git.v1 import git_pb2
from boatyard.workspace.v1 import workspace_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Shape = dict[str, Any]


def line(shape: Shape) -> str:
    """Write one object as one line, of ASCII alone."""
    return json.dumps(shape)


def text(value: bytes) -> str | None:
    """Read a path or a branch; None when it is empty."""
    return value.decode("utf-8", "surrogateescape") or None


def name(name_of: Callable[[Any], str], number: int, prefix: str = "STATE_") -> str:
    """Return a state's name without prefix, also of one that is newer than this program."""
    try:
        return name_of(number).removeprefix(prefix)
    except ValueError:
        return f"UNKNOWN_{number}"


def job_state(job: job_pb2.Job) -> str:
    """Return a job's state, such as RUNNING."""
    return name(job_pb2.Job.State.Name, job.state)


def event(value: event_pb2.Event) -> Shape:
    """Describe one event of an execution's log."""
    kind = value.WhichOneof("kind")
    shape: Shape = {"sequence": value.sequence, "time": time(value.time), "kind": kind or "unknown"}
    if kind == "output":
        return shape | {"stream": stream(value.output), **_bytes("data", value.output.data)}
    if kind is not None:
        body = getattr(value, kind)
        for field in body.DESCRIPTOR.fields:
            shape |= _field(body, field)
    return shape


def stream(output: event_pb2.Output) -> str:
    """Return which stream it is: stdout or stderr."""
    return name(event_pb2.Output.Stream.Name, output.stream, "STREAM_").lower()


def submitted(job: job_pb2.Job) -> Shape:
    """Say that a job was admitted."""
    return {"kind": "submitted", "job_id": job.job_id, "execution_id": last_execution(job)}


def stage(value: job_pb2.StageRecord) -> Shape:
    """Describe one step of a job."""
    return {
        "name": value.name,
        "state": name(job_pb2.StageRecord.State.Name, value.state),
        "message": value.message or None,
        "start_time": _time_of(value, "start_time"),
        "end_time": _time_of(value, "end_time"),
    }


def result(job: job_pb2.Job) -> Shape:
    """Say how a job ended."""
    return {
        "kind": "result",
        "job_id": job.job_id,
        "execution_id": last_execution(job),
        "state": job_state(job),
        "reason": job.reason or None,
        **_outcome(job.output),
        "duration_ms": duration_ms(job),
    }


def job(value: job_pb2.Job) -> Shape:
    """Describe a job in full."""
    spec, output = value.spec, value.output
    return {
        "kind": "job",
        "job_id": value.job_id,
        "execution_id": last_execution(value),
        "execution_ids": list(value.execution_ids),
        "project_id": spec.project_id,
        "job_kind": spec.kind,
        "priority": spec.priority,
        "state": job_state(value),
        "reason": value.reason or None,
        "message": value.message or None,
        "cell_id": value.cell_id or None,
        "cancel_requested": value.cancel_requested,
        "prompt": spec.prompt,
        "repository_id": spec.repository_id or None,
        "revision": text(spec.revision),
        "worker_id": spec.worker_id or None,
        "work_item_id": spec.work_item_id or None,
        "workspace_id": value.workspace_id or None,
        "labels": dict(spec.labels),
        "not_before_time": _time_of(spec, "not_before_time"),
        "files": [{"name": file.name, "bytes": file.size_bytes} for file in spec.files],
        "data": text(spec.data),
        **_outcome(output),
        **_details(output),
        "create_time": _time_of(value, "create_time"),
        "start_time": _time_of(value, "start_time"),
        "end_time": _time_of(value, "end_time"),
        "duration_ms": duration_ms(value),
        "timeline": [stage(record) for record in value.timeline],
        "checkpoints": [checkpoint(asked) for asked in value.checkpoints],
    }


def execution(value: runtime_pb2.Execution) -> Shape:
    """Describe an execution in full."""
    return {
        "kind": "execution",
        "execution_id": value.execution_id,
        "job_id": value.job_id,
        "purpose": name(ExecutionSpec.Purpose.Name, value.purpose, "PURPOSE_"),
        "attempt": value.attempt,
        "state": name(runtime_pb2.Execution.State.Name, value.state),
        "reason": value.reason or None,
        "message": value.message or None,
        **_outcome(value.output),
        **_details(value.output),
        "create_time": _time_of(value, "create_time"),
        "start_time": _time_of(value, "start_time"),
        "end_time": _time_of(value, "end_time"),
        "duration_ms": value.duration.ToMilliseconds() if value.HasField("duration") else None,
    }


def checkpoint(value: checkpoint_pb2.Checkpoint) -> Shape:
    """Describe a question to a person, and its answer."""
    return {
        "kind": "checkpoint",
        "checkpoint_id": value.checkpoint_id,
        "job_id": value.job_id,
        "execution_id": value.execution_id,
        "name": value.name,
        "origin": name(checkpoint_pb2.Checkpoint.Origin.Name, value.origin, "ORIGIN_"),
        "question": value.question,
        "round": value.round,
        "takes_changes": value.takes_changes,
        "state": checkpoint_state(value),
        "comment": value.comment or None,
        "decided_by": value.decider.name or None,
        "decided_from": value.decider.peer or None,
        "decided_via": value.decider.via or None,
        "create_time": _time_of(value, "create_time"),
        "expire_time": _time_of(value, "expire_time"),
        "decide_time": _time_of(value, "decide_time"),
    }


def checkpoint_state(value: checkpoint_pb2.Checkpoint) -> str:
    """Return where a question stands, such as PENDING."""
    return name(checkpoint_pb2.Checkpoint.State.Name, value.state)


def workspace_path(value: workspace_pb2.Workspace) -> str | None:
    """Return where a workspace's files are: all of them, or of one that each sandbox mounts for itself the changes."""
    layers = value.layout.layers
    return text(value.layout.path or layers.mounted_path or layers.upper)


def cell(value: admin_pb2.Cell) -> Shape:
    """Describe a machine that takes jobs."""
    return {
        "kind": "cell",
        "cell_id": value.cell_id,
        "cell_kind": name(admin_pb2.Cell.Kind.Name, value.kind, "KIND_"),
        "state": name(admin_pb2.Cell.State.Name, value.state),
        "host": value.host,
        "version": value.version,
        "address": value.address or None,
        "capacity": value.capacity,
        "running_jobs": value.running_jobs,
        "paused": value.paused,
        "start_time": _time_of(value, "start_time"),
        "beat_time": _time_of(value, "beat_time"),
    }


def status(value: admin_pb2.GetStatusResponse) -> Shape:
    """Say how much there is to do, and by whom."""
    return {
        "kind": "status",
        "version": value.version,
        "cell_id": value.cell_id,
        "active_cells": value.active_cells,
        "paused_cells": value.paused_cells,
        "away_cells": value.away_cells,
        "capacity": value.capacity,
        "jobs": dict(sorted(value.jobs.items())),
        "oldest_wait_time": _time_of(value, "oldest_wait_time"),
    }


def workspace(value: workspace_pb2.Workspace, cell_id: str, usage: workspace_pb2.WorkspaceUsage | None = None) -> Shape:
    """Describe a workspace, and what it takes where that is known."""
    return {
        "kind": "workspace",
        "workspace_id": value.workspace_id,
        "cell_id": cell_id,
        "state": name(workspace_pb2.Workspace.State.Name, value.state),
        "path": workspace_path(value),
        "driver": value.driver,
        "bytes": None if usage is None else usage.bytes,
        "inodes": None if usage is None else usage.inodes,
        "held_by": value.held_by or None,
        "project_id": value.purpose.project_id or None,
        "job_id": value.purpose.job_id or None,
        "worker_id": value.purpose.worker_id or None,
        "work_item_id": value.purpose.work_item_id or None,
        "repository_id": value.purpose.repository_id or None,
        "branch": text(value.purpose.branch),
        "create_time": _time_of(value, "create_time"),
        "update_time": _time_of(value, "update_time"),
        "expire_time": _time_of(value, "expire_time"),
    }


def snapshot(value: git_pb2.Snapshot, cell_id: str) -> Shape:
    """Describe a snapshot."""
    return {
        "kind": "snapshot",
        "snapshot_id": value.snapshot_id,
        "cell_id": cell_id,
        "repository_id": value.repository_id,
        "base_commit": value.base_commit_id,
        "commit": value.commit_id,
        "message": value.message.strip() or None,
        "create_time": _time_of(value, "create_time"),
        "expire_time": _time_of(value, "expire_time"),
    }


def permission_answer(value: event_pb2.PermissionAnswer) -> Shape:
    """Describe an answer to a model's question."""
    return {
        "kind": "permission_answer",
        "permission_id": value.permission_id,
        "allowed": value.allowed,
        "decided_by": value.decided_by or None,
        "reason": value.reason or None,
    }


def diff(of: Mapping[str, str], data: bytes) -> Shape:
    """Describe a diff; `of` has the id of whose it is."""
    return {"kind": "diff", **of, **_bytes("diff", data)}


def last_execution(job: job_pb2.Job) -> str | None:
    """Return the id of a job's last attempt; None when it has made none."""
    return job.execution_ids[-1] if job.execution_ids else None


def duration_ms(job: job_pb2.Job) -> int | None:
    """Return how long a job took, from its admission to its end; None while it has not ended."""
    if not job.HasField("end_time"):
        return None
    return job.end_time.ToMilliseconds() - job.create_time.ToMilliseconds()


def time(value: Timestamp) -> str:
    """Write a time."""
    return value.ToJsonString()


def _outcome(output: output_pb2.Output) -> Shape:
    tested = output.HasField("verification")
    return {
        "branch": text(output.branch),
        "commit": output.commit_id or None,
        "files_changed": [text(change.path) for change in output.files_changed],
        "tests_run": tested,
        "tests_passed": output.verification.passed if tested else None,
        "tokens_used": output.tokens_used if output.HasField("tokens_used") else None,
        "cost_usd": output.cost_usd if output.HasField("cost_usd") else None,
    }


def _details(output: output_pb2.Output) -> Shape:
    return {
        "total_files_changed": output.total_files_changed,
        "base_commit": output.base_commit_id or None,
        "pushed": output.pushed,
        "verification_execution_id": output.verification.execution_id or None,
        "summary": output.summary or None,
        "output_bytes": output.output_bytes,
        "exit_code": output.exit_code if output.HasField("exit_code") else None,
        "signal": output.signal if output.HasField("signal") else None,
        "tool_calls": output.tool_calls if output.HasField("tool_calls") else None,
        "turns": output.turns if output.HasField("turns") else None,
        "snapshot_id": output.snapshot_id or None,
        "cpu_seconds": output.cpu_seconds if output.HasField("cpu_seconds") else None,
        "memory_peak_bytes": output.memory_peak_bytes if output.HasField("memory_peak_bytes") else None,
    }


def _field(body: Message, field: FieldDescriptor) -> Shape:
    if field.has_presence and not body.HasField(field.name):
        return {field.name: None}
    value = getattr(body, field.name)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(field.name, value)
    return {field.name: None if value == "" else value}


def _bytes(key: str, value: bytes) -> Shape:
    try:
        return {key: value.decode()}
    except UnicodeDecodeError:
        return {f"{key}_base64": base64.b64encode(value).decode()}


def _time_of(message: Any, field: str) -> str | None:  # noqa: ANN401 - any message with times
    return time(getattr(message, field)) if message.HasField(field) else None


SANDBOX_TIERS = {
    "bubblewrap": sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP,
    "none": sandbox_pb2.SANDBOX_TIER_NONE,
}
"""How a sandbox tier is called on the command line."""
