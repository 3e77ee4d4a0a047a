"""Cells, and the workspaces and snapshots on them."""

from collections.abc import Iterable

from boatyard.agent.v1 import limits_pb2, sandbox_pb2
from boatyard.execution.v1 import execution_pb2
from boatyard.gateway.v1 import admin_pb2
from boatyard.git.v1 import git_pb2
from boatyard.workspace.v1 import workspace_pb2
from google.protobuf.duration_pb2 import Duration

from services.cli.shapes.values import Shape, name, time_of


def cell(value: admin_pb2.Cell) -> Shape:
    """Describe a cell."""
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
        "paused": value.state in {admin_pb2.Cell.STATE_PAUSED, admin_pb2.Cell.STATE_AWAY_PAUSED},
        "start_time": time_of(value, "start_time"),
        "beat_time": time_of(value, "beat_time"),
        "allowed_sandboxes": tiers(value.allowed_tiers),
        "allowed_networks": networks(value.allowed_networks),
        "limits": limits(value.limits),
        "troubles": [{"reason": each.reason, "message": each.message} for each in value.troubles],
    }


def tiers(numbers: Iterable[int]) -> list[str]:
    """Write sandbox tiers as options do."""
    return [name(sandbox_pb2.SandboxTier.Name, each, "SANDBOX_TIER_").lower() for each in numbers]


def limits(value: limits_pb2.ExecutionLimits) -> Shape:
    """Write the most that may be asked for: spans in seconds, and what has no maximum not at all."""
    return {
        field.name: most.seconds + most.nanos / 1e9 if isinstance(most, Duration) else most
        for field, most in value.ListFields()
    }


def choices(value: admin_pb2.GetStatusResponse | execution_pb2.DescribeNodeResponse) -> str:
    """Write in words what may be chosen and asked for."""
    most = ", ".join(f"{limit} {number:.15g}" for limit, number in limits(value.limits).items())
    sandboxes, reached = tiers(value.allowed_tiers), networks(value.allowed_networks)
    text = f"--sandbox {' or '.join(sandboxes)}; --network {' or '.join(reached)}"
    return f"{text}; at most {most}" if most else text


def networks(numbers: Iterable[int]) -> list[str]:
    """Write networks as options do."""
    return [name(sandbox_pb2.Network.Name, each, "NETWORK_").lower().replace("_", "-") for each in numbers]


def status(value: admin_pb2.GetStatusResponse) -> Shape:
    """Describe how many jobs and cells there are."""
    return {
        "kind": "status",
        "version": value.version,
        "cell_id": value.cell_id,
        "active_cells": value.active_cells,
        "paused_cells": value.paused_cells,
        "not_ready_cells": value.not_ready_cells,
        "away_cells": value.away_cells,
        "capacity": value.capacity,
        "jobs": dict(sorted(value.jobs.items())),
        "oldest_wait_time": time_of(value, "oldest_wait_time"),
        "allowed_sandboxes": tiers(value.allowed_tiers),
        "allowed_networks": networks(value.allowed_networks),
        "limits": limits(value.limits),
    }


def workspace(value: workspace_pb2.Workspace, cell_id: str, usage: workspace_pb2.WorkspaceUsage | None = None) -> Shape:
    """Describe a workspace, and its disk use where that is known."""
    return {
        "kind": "workspace",
        "workspace_id": value.workspace_id,
        "cell_id": cell_id,
        "state": name(workspace_pb2.Workspace.State.Name, value.state),
        "path": value.path or None,
        "driver": value.driver,
        "bytes": None if usage is None else usage.bytes,
        "inodes": None if usage is None else usage.inodes,
        "held_by": value.held_by or None,
        "project_id": value.labels.project_id or None,
        "job_id": value.labels.job_id or None,
        "worker_id": value.labels.worker_id or None,
        "work_item_id": value.labels.work_item_id or None,
        "repository_id": value.labels.repository_id or None,
        "branch": value.labels.branch or None,
        "create_time": time_of(value, "create_time"),
        "update_time": time_of(value, "update_time"),
        "complete_time": time_of(value, "complete_time"),
        "expire_time": time_of(value, "expire_time"),
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
        "create_time": time_of(value, "create_time"),
        "expire_time": time_of(value, "expire_time"),
    }
