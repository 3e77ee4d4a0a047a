"""What the command line prints as JSON: the gateway's messages in the words that scripts rely on.

What is not known is null, never 0 or "". Times are RFC 3339 in UTC. Paths in a repository need not be UTF-8: a byte
that is not stands as a lone surrogate U+DC80 to U+DCFF, as Python's `surrogateescape` has it.
"""

from services.cli.shapes.cells import cell, choices, networks, snapshot, status, tiers, workspace
from services.cli.shapes.events import event, permission_answer, stream
from services.cli.shapes.jobs import (
    artifact,
    checkpoint,
    checkpoint_state,
    diff,
    duration_ms,
    execution,
    job,
    job_state,
    last_execution,
    result,
    saved_artifact,
    saved_recording,
    stage,
    submitted,
    waits_for,
)
from services.cli.shapes.usage import sums
from services.cli.shapes.values import Shape, line, name, path, paths, time

__all__ = [
    "Shape",
    "artifact",
    "cell",
    "checkpoint",
    "checkpoint_state",
    "choices",
    "diff",
    "duration_ms",
    "event",
    "execution",
    "job",
    "job_state",
    "last_execution",
    "line",
    "name",
    "networks",
    "path",
    "paths",
    "permission_answer",
    "result",
    "saved_artifact",
    "saved_recording",
    "snapshot",
    "stage",
    "status",
    "stream",
    "submitted",
    "sums",
    "tiers",
    "time",
    "waits_for",
    "workspace",
]
