"""The limits of a StartExecutionRequest, filled up from the settings: who enforces them, and who is told."""

import os
from typing import Literal, get_args

from boatyard.execution.v1 import execution_pb2 as pb

from services.execution import wire
from services.execution.model import Bounds
from services.execution.settings import ExecutionSettings
from services.execution.wire import Violations
from services.sandbox.spec import Limits

_LONGEST_S = 7 * 86400.0
_DEFAULT_WALL_S = 3600.0
_SPARE_PROCESSES = 64

_LimitName = Literal[
    "memory_bytes", "processes", "cpu_seconds", "open_files", "file_size_bytes", "workspace_bytes", "output_bytes"
]
_LIMITS: tuple[_LimitName, ...] = get_args(_LimitName)
_TimeoutName = Literal["wall_timeout", "idle_timeout"]
_TIMEOUTS: tuple[_TimeoutName, ...] = get_args(_TimeoutName)


def violations(limits: pb.ExecutionLimits) -> Violations:
    """What is wrong with the limits."""
    found: Violations = []
    for timeout in _TIMEOUTS:
        if limits.HasField(timeout) and not 0 < wire.seconds(getattr(limits, timeout)) <= _LONGEST_S:
            found.append((f"spec.limits.{timeout}", "must be more than 0 s, and at most 7 days"))
    for limit in _LIMITS:
        if limits.HasField(limit) and getattr(limits, limit) <= 0:
            found.append((f"spec.limits.{limit}", "must be more than 0"))
    return found


def bounds(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> Bounds:
    """Return what the runner ends the run at."""
    limits, times = _limits(spec, settings), spec.limits
    upper = spec.layout.layers.upper
    most = settings.max_output_bytes
    return Bounds(
        wall_timeout_s=wire.seconds(times.wall_timeout) if times.HasField("wall_timeout") else _DEFAULT_WALL_S,
        idle_timeout_s=wire.seconds(times.idle_timeout) if times.HasField("idle_timeout") else None,
        max_output_bytes=min(limits["output_bytes"] or most, most),
        memory_bytes=limits["memory_bytes"],
        processes=limits["processes"],
        cpu_seconds=limits["cpu_seconds"],
        workspace_bytes=limits["workspace_bytes"],
        workspace=os.fsdecode(upper or spec.layout.path),
        workspace_begins_empty=bool(upper),
    )


def of_sandbox(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> Limits:
    """Return what the kernel refuses to each process."""
    limits = _limits(spec, settings)
    return Limits(
        # Of each user namespace, and not where root starts it: the kernel's last resort, behind the runner's.
        processes=2 * (limits["processes"] or 0) + _SPARE_PROCESSES,
        open_files=limits["open_files"],
        file_size_bytes=limits["file_size_bytes"],
        scratch_bytes=settings.scratch_bytes,
    )


def told(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> dict[str, bytes]:
    """Return what the program is told of its limits: BOATYARD_LIMIT_<NAME>, in bytes, seconds and pieces."""
    ends = bounds(spec, settings)
    values: dict[str, float | None] = {
        **{str(name): value for name, value in _limits(spec, settings).items()},
        "output_bytes": ends.max_output_bytes,
        "wall_seconds": ends.wall_timeout_s,
        "idle_seconds": ends.idle_timeout_s,
    }
    return {f"BOATYARD_LIMIT_{name.upper()}": f"{value:.15g}".encode() for name, value in values.items() if value}


def _limits(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> dict[_LimitName, int | None]:
    """What was asked for, and else what the settings say."""
    default: dict[_LimitName, int] = {
        "memory_bytes": settings.memory_bytes,
        "processes": settings.processes,
        "workspace_bytes": settings.workspace_bytes,
    }
    asked = spec.limits
    return {name: getattr(asked, name) if asked.HasField(name) else default.get(name) for name in _LIMITS}
