"""Jobs, their executions, and what people were asked."""

from collections.abc import Mapping

from boatyard.execution.v1.execution_pb2 import ExecutionSpec
from boatyard.gateway.v1 import budget_pb2, checkpoint_pb2, job_pb2, output_pb2, runtime_pb2
from boatyard.git.v1 import git_pb2

from services.cli.shapes.usage import usage
from services.cli.shapes.values import Shape, content, known, name, path, paths, time_of


def submitted(job: job_pb2.Job) -> Shape:
    """Say that a job was admitted."""
    return {"kind": "submitted", "job_id": job.job_id, "execution_id": last_execution(job)}


def stage(value: job_pb2.StageRecord) -> Shape:
    """Describe one stage of a job."""
    return {
        "name": value.name,
        "state": name(job_pb2.StageRecord.State.Name, value.state),
        "message": value.message or None,
        "hook_id": value.hook_id or None,
        "start_time": time_of(value, "start_time"),
        "end_time": time_of(value, "end_time"),
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
        "waiting_for": _waiting_for(value),
        "prompt": spec.prompt,
        "repository_id": spec.repository_id or None,
        "revision": spec.revision or None,
        "worker_id": spec.worker_id or None,
        "work_item_id": spec.work_item_id or None,
        "workspace_id": value.workspace_id or None,
        "labels": dict(spec.labels),
        "not_before_time": time_of(spec, "not_before_time"),
        "files": [{"name": file.name, "bytes": file.size_bytes} for file in spec.files],
        "data": spec.data or None,
        "budget": _budget(value),
        **_outcome(output),
        **_details(output),
        "usage": [usage(each) for each in value.usage],
        "create_time": time_of(value, "create_time"),
        "start_time": time_of(value, "start_time"),
        "end_time": time_of(value, "end_time"),
        "duration_ms": duration_ms(value),
        "timeline": [stage(record) for record in value.timeline],
        "checkpoints": [checkpoint(each) for each in value.checkpoints],
    }


def waits_for(value: job_pb2.Job) -> str:
    """Return the word for what a job waits for; empty when it waits for nothing."""
    return name(job_pb2.Waiting.Kind.Name, value.waiting_for.kind, "KIND_") if value.HasField("waiting_for") else ""


def _waiting_for(value: job_pb2.Job) -> Shape | None:
    if not value.HasField("waiting_for"):
        return None
    waiting = value.waiting_for
    return {
        "kind": waits_for(value),
        "cell_id": waiting.cell_id or None,
        "running_job_ids": list(waiting.running_job_ids),
        "message": waiting.message,
    }


def _budget(value: job_pb2.Job) -> Shape | None:
    """Return what a job may spend on models, and what of it is left; null for a job without a budget of its own."""
    limits, use = value.spec.policy.budget, value.budget_use
    if not (amounts := _amounts(limits)):
        return None
    left = use.left if value.HasField("budget_use") else limits
    spent, reserved = ({each: getattr(part, each) for each in amounts} for part in (use.spent, use.reserved))
    return {"limits": amounts, "spent": spent, "reserved": reserved, "left": _amounts(left)}


def _amounts(limits: budget_pb2.BudgetLimits | budget_pb2.Spending) -> Shape:
    return {each: getattr(limits, each) for each in ("cost_usd", "tokens", "requests") if limits.HasField(each)}


def execution(value: runtime_pb2.Execution) -> Shape:
    """Describe an execution in full."""
    return {
        "kind": "execution",
        "execution_id": value.execution_id,
        "job_id": value.job_id,
        "job_state": name(job_pb2.Job.State.Name, value.job_state),
        "job_reason": value.job_reason or None,
        "project_id": value.project_id or None,
        "template_id": value.template_id or None,
        "worker_id": value.worker_id or None,
        "work_item_id": value.work_item_id or None,
        "workspace_id": value.workspace_id or None,
        "purpose": name(ExecutionSpec.Purpose.Name, value.purpose, "PURPOSE_"),
        "attempt": value.attempt,
        "state": name(runtime_pb2.Execution.State.Name, value.state),
        "reason": value.reason or None,
        "message": value.message or None,
        **_outcome(value.output),
        "branch": value.branch or None,
        **_details(value.output),
        "usage": [usage(each) for each in value.output.usage],
        "create_time": time_of(value, "create_time"),
        "start_time": time_of(value, "start_time"),
        "end_time": time_of(value, "end_time"),
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
        "create_time": time_of(value, "create_time"),
        "expire_time": time_of(value, "expire_time"),
        "decide_time": time_of(value, "decide_time"),
    }


def diff(subject: Mapping[str, str], data: bytes) -> Shape:
    """Describe a diff; `subject` has the id of its execution or snapshot."""
    return {"kind": "diff", **subject, **content("diff", data)}


def artifact(value: git_pb2.Artifact) -> Shape:
    """Describe a file that was kept."""
    return {"name": value.name, "bytes": value.size_bytes, "sha256": value.sha256}


def omitted_artifact(value: git_pb2.OmittedArtifact) -> Shape:
    """Describe a file that was not kept, or a pattern that names none."""
    return {"name": value.name, "reason": name(git_pb2.OmittedArtifact.Reason.Name, value.reason, "REASON_")}


def saved_artifact(subject: str, artifact_name: str, path: str, size: int) -> Shape:
    """Say that a file was written."""
    return {"kind": "artifact", "id": subject, "name": artifact_name, "path": path, "bytes": size}


def saved_recording(subject: str, path: str, size: int) -> Shape:
    """Say that a recording was written."""
    return {"kind": "recording", "id": subject, "path": path, "bytes": size}


def job_state(job: job_pb2.Job) -> str:
    """Return a job's state, such as RUNNING."""
    return name(job_pb2.Job.State.Name, job.state)


def checkpoint_state(value: checkpoint_pb2.Checkpoint) -> str:
    """Return a checkpoint's state, such as PENDING."""
    return name(checkpoint_pb2.Checkpoint.State.Name, value.state)


def last_execution(job: job_pb2.Job) -> str | None:
    """Return the id of a job's last attempt; None when it has made none."""
    return job.execution_ids[-1] if job.execution_ids else None


def duration_ms(job: job_pb2.Job) -> int | None:
    """Return how long a job took, from its admission to its end; None while it has not ended."""
    if not job.HasField("end_time"):
        return None
    return job.end_time.ToMilliseconds() - job.create_time.ToMilliseconds()


def _outcome(output: output_pb2.Output) -> Shape:
    is_verified = output.HasField("verification")
    return {
        "branch": output.branch or None,
        "commit": output.commit_id or None,
        "files_changed": [path(change.path, change.raw_path) for change in output.files_changed],
        "artifacts": [artifact(each) for each in output.artifacts],
        "total_artifacts": output.total_artifacts,
        "omitted_artifacts": [omitted_artifact(each) for each in output.omitted_artifacts],
        "total_omitted_artifacts": output.total_omitted_artifacts,
        "tests_run": is_verified,
        "tests_passed": output.verification.passed if is_verified else None,
        "incomplete": output.incomplete,
        "caveats": [_caveat(each) for each in output.caveats],
        "tokens_used": known(output, "tokens_used"),
        "cost_usd": known(output, "cost_usd"),
        "claimed_tokens": known(output, "claimed_tokens"),
        "claimed_cost_usd": known(output, "claimed_cost_usd"),
    }


def _caveat(value: git_pb2.Caveat) -> Shape:
    return {
        "kind": name(git_pb2.Caveat.Kind.Name, value.kind, "KIND_"),
        "paths": paths(value.paths, value.raw_paths),
        "total_paths": value.total_paths,
        "detail": value.detail or None,
    }


def _details(output: output_pb2.Output) -> Shape:
    return {
        "total_files_changed": output.total_files_changed,
        "base_commit": output.base_commit_id or None,
        "agent_commits": output.agent_commits,
        "pushed": output.pushed,
        "reported": output.reported,
        "verification_execution_id": output.verification.execution_id or None,
        "summary": output.summary or None,
        "output_bytes": output.output_bytes,
        "exit_code": known(output, "exit_code"),
        "signal": known(output, "signal"),
        "processes_left": known(output, "processes_left"),
        "tool_calls": known(output, "tool_calls"),
        "turns": known(output, "turns"),
        "snapshot_id": output.snapshot_id or None,
        "cpu_seconds": known(output, "cpu_seconds"),
        "memory_peak_bytes": known(output, "memory_peak_bytes"),
    }
