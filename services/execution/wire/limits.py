"""Reads the limits of a StartExecutionRequest, with defaults from the settings.

The runner enforces some (`bounds`), the kernel others (`sandbox_limits`), and the program is told all of them
(`limit_variables`).
"""

from typing import Literal, get_args

from boatyard.execution.v1 import execution_pb2 as pb

from services.common.rpc.times import seconds_from_proto
from services.common.text import path_from_text
from services.execution.model import Bounds
from services.execution.settings import ExecutionSettings
from services.sandbox.spec import Limits

_DEFAULT_WALL_S = 3600.0
_SPARE_PROCESSES = 64  # for the sandbox's own processes

_LimitName = Literal[
    "memory_bytes", "processes", "cpu_seconds", "open_files", "file_size_bytes", "workspace_bytes", "output_bytes"
]
_LIMITS: tuple[_LimitName, ...] = get_args(_LimitName)


def bounds(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> Bounds:
    """Return the limits that the runner enforces: it ends a run that exceeds one."""
    limits, timeouts = _limits(spec, settings), spec.limits
    upper = spec.layout.layers.upper
    max_output = settings.max_output_bytes
    return Bounds(
        wall_timeout_s=seconds_from_proto(timeouts.wall_timeout)
        if timeouts.HasField("wall_timeout")
        else _DEFAULT_WALL_S,
        idle_timeout_s=seconds_from_proto(timeouts.idle_timeout) if timeouts.HasField("idle_timeout") else None,
        max_output_bytes=min(limits["output_bytes"] or max_output, max_output),
        memory_bytes=limits["memory_bytes"],
        processes=limits["processes"],
        cpu_seconds=limits["cpu_seconds"],
        workspace_bytes=limits["workspace_bytes"],
        workspace=str(path_from_text(upper or spec.layout.path)),
        workspace_begins_empty=bool(upper),
    )


def sandbox_limits(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> Limits:
    """Return the limits that the kernel enforces."""
    limits = _limits(spec, settings)
    return Limits(
        # Twice the limit: the runner's own count ends the run first, with a reason. The kernel counts processes in each
        # user namespace, and not at all when root starts the sandbox, so this is only the last resort.
        processes=2 * (limits["processes"] or 0) + _SPARE_PROCESSES,
        open_files=limits["open_files"],
        file_size_bytes=limits["file_size_bytes"],
        scratch_bytes=settings.scratch_bytes,
    )


def limit_variables(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> dict[str, bytes]:
    """Return the variables that tell the program its limits: BOATYARD_LIMIT_<NAME>, in bytes, seconds or counts."""
    effective = bounds(spec, settings)
    values: dict[str, float | None] = {
        **{str(name): value for name, value in _limits(spec, settings).items()},
        "output_bytes": effective.max_output_bytes,
        "wall_seconds": effective.wall_timeout_s,
        "idle_seconds": effective.idle_timeout_s,
    }
    return {f"BOATYARD_LIMIT_{name.upper()}": f"{value:.15g}".encode() for name, value in values.items() if value}


def _limits(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> dict[_LimitName, int | None]:
    """Return the limits that the request names, and the settings' defaults for others; None means no limit."""
    default: dict[_LimitName, int] = {
        "memory_bytes": settings.memory_bytes,
        "processes": settings.processes,
        "workspace_bytes": settings.workspace_bytes,
    }
    limits = spec.limits
    return {name: getattr(limits, name) if limits.HasField(name) else default.get(name) for name in _LIMITS}
