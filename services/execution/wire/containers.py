"""Reads the container of a StartExecutionRequest: its image, and what a container cannot do."""

import re

from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition
from services.common.rpc.rules import Violation
from services.execution.settings import ExecutionSettings
from services.sandbox.spec import Container

# Variables are set by the container's shell, before it does anything else.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def violations(spec: pb.ExecutionSpec) -> list[Violation]:
    """Return what is wrong with a container of this specification."""
    problems: list[Violation] = []
    if spec.layout.WhichOneof("kind") == "layers" and not spec.layout.layers.mounted_path:
        text = "is required in a container: its engine sees what the host sees, and cannot stack a workspace's layers"
        problems.append(("spec.layout.layers.mounted_path", text))
    for field, names in (("spec.environment", spec.environment), ("spec.secrets", spec.secrets)):
        bad_names = sorted(name for name in names if name and not _VARIABLE.fullmatch(name))
        problems += [(field, f"{name!r} is not a name that a container's shell can set") for name in bad_names]
    return problems


def container(agent: AgentSettings, settings: ExecutionSettings) -> Container:
    """Return what to make the container from. Raises FailedPrecondition (IMAGE_NOT_ALLOWED)."""
    if complaint := settings.images.complaint(agent.image or ""):
        raise FailedPrecondition("IMAGE_NOT_ALLOWED", f"spec.agent.image {complaint}", "spec.agent.image")
    return Container(
        image=agent.image or settings.container_image,
        engine=settings.container_engine,
        may_pull=settings.container_pull == "missing",
        memory_bytes=agent.memory_bytes,
        processes=agent.processes,
    )
