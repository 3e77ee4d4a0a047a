"""The limits of an execution, from the complete settings of its agent.

The runner enforces some (`bounds`), the kernel others (`sandbox_limits`), and the program is told all of them
(`limit_variables`).
"""

from dataclasses import replace

from boatyard.workspace.v1 import layout_pb2

from services.agent.limits import bounded
from services.agent.settings import DEFAULT_TIMEOUT, DEFAULT_TURNS, AgentSettings, CommandEngine, overlay
from services.common.text import path_from_text
from services.execution.model import Bounds
from services.execution.settings import ExecutionSettings
from services.sandbox.spec import Limits, Tier

_SPARE_PROCESSES = 64  # for the sandbox's own processes
_NUMBERS = ("memory_bytes", "processes", "cpu_seconds", "open_files", "file_size_bytes", "disk_bytes", "output_bytes")
_OF_SANDBOXES = ("scratch_bytes",)
_SPANS = ("timeout", "idle_timeout")


def complete(agent: AgentSettings, settings: ExecutionSettings) -> AgentSettings:
    """Return settings of an agent with the service's defaults, or the most that it allows, for what they leave open."""
    defaults = AgentSettings(
        engine=CommandEngine(),
        timeout=DEFAULT_TIMEOUT,
        max_turns=DEFAULT_TURNS,
        sandbox_tier=settings.sandbox_tier,
        network=settings.network,
        memory_bytes=settings.memory_bytes,
        processes=settings.processes,
        disk_bytes=settings.workspace_bytes,
        output_bytes=settings.max_output_bytes,
        scratch_bytes=settings.scratch_bytes,
    )
    full = overlay(bounded(defaults, settings.limits), agent)
    return replace(
        full,
        output_bytes=min(full.output_bytes or settings.max_output_bytes, settings.max_output_bytes),
        scratch_bytes=min(full.scratch_bytes or settings.scratch_bytes, settings.scratch_bytes),
    )


def bounds(agent: AgentSettings, layout: layout_pb2.Layout, home_path: str, settings: ExecutionSettings) -> Bounds:
    """Return the limits that the runner enforces: it ends a run that exceeds one, and logs stop at half the reserve."""
    upper = layout.layers.upper
    return Bounds(
        wall_timeout_s=(agent.timeout or DEFAULT_TIMEOUT).total_seconds(),
        idle_timeout_s=None if agent.idle_timeout is None else agent.idle_timeout.total_seconds(),
        max_output_bytes=agent.output_bytes or 0,
        memory_bytes=agent.memory_bytes,
        processes=agent.processes,
        cpu_seconds=agent.cpu_seconds,
        workspace_bytes=agent.disk_bytes,
        workspace=str(path_from_text(upper or layout.path)),
        home=str(path_from_text(home_path)) if home_path else None,
        workspace_begins_empty=bool(upper),
        scratch_bytes=None if agent.tier is Tier.NONE else agent.scratch_bytes,
        disk_floor_bytes=settings.disk_reserve_bytes // 2,
        model_patience_s=settings.model_patience_seconds,
        model_first_byte_s=settings.model_first_byte_seconds,
    )


def sandbox_limits(agent: AgentSettings) -> Limits:
    """Return the limits that the kernel enforces."""
    return Limits(
        # Twice the limit: the runner's own count ends the run first, with a reason. The kernel counts processes in each
        # user namespace, and not at all when root starts the sandbox, so this is only the last resort.
        processes=2 * (agent.processes or 0) + _SPARE_PROCESSES,
        open_files=agent.open_files,
        file_size_bytes=agent.file_size_bytes,
        scratch_bytes=agent.scratch_bytes,
    )


def limit_variables(agent: AgentSettings) -> dict[str, bytes]:
    """Return the variables that tell the program its limits: BOATYARD_LIMIT_<NAME>, in bytes, seconds or counts."""
    names = _NUMBERS if agent.tier is Tier.NONE else _NUMBERS + _OF_SANDBOXES
    numbers = {name: getattr(agent, name) for name in names}
    seconds = {f"{name}_seconds": getattr(agent, name) for name in _SPANS}
    limits = numbers | {name: f"{span.total_seconds():.15g}" for name, span in seconds.items() if span is not None}
    return {
        f"BOATYARD_LIMIT_{name.upper()}": str(limit).encode() for name, limit in limits.items() if limit is not None
    }
