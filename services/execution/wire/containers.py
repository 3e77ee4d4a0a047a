"""Reads the container of a StartExecutionRequest: its image, and what a container cannot do."""

import fnmatch
import re

from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition
from services.common.rpc.rules import Violation
from services.execution.settings import ExecutionSettings
from services.sandbox.spec import Container

# registry.example:5000/team/name:tag@sha256:…; with another first character it could be an option of the client.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
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
    return Container(
        image=_image(agent, settings),
        engine=settings.container_engine,
        may_pull=settings.container_pull == "missing",
        memory_bytes=agent.memory_bytes,
        processes=agent.processes,
    )


def _image(agent: AgentSettings, settings: ExecutionSettings) -> str:
    image = agent.image or settings.container_image
    if not image:
        text = "an image is required (--image): there is no default here (BOATYARD_EXECUTION_CONTAINER_IMAGE)"
        raise FailedPrecondition("IMAGE_NOT_ALLOWED", text, "spec.agent.image")
    allowed = (settings.container_image, *settings.container_images)
    if not _IMAGE.fullmatch(image) or not any(fnmatch.fnmatchcase(image, pattern) for pattern in allowed):
        text = (
            f"spec.agent.image {image!r} is not among those that may be used here (BOATYARD_EXECUTION_CONTAINER_IMAGES)"
        )
        raise FailedPrecondition("IMAGE_NOT_ALLOWED", text, "spec.agent.image")
    return image
