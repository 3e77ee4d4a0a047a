"""The container of a StartExecutionRequest: its image, and what a container cannot do."""

import fnmatch
import re

from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import FailedPrecondition
from services.execution.model import Bounds
from services.execution.settings import ExecutionSettings
from services.execution.wire import Violations
from services.sandbox.spec import Container, Network

# registry.example:5000/team/name:tag@sha256:…; what begins otherwise could be an option of the engine's client.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
# The container's shell sets them, before anything else.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def violations(spec: pb.ExecutionSpec, network: Network) -> Violations:
    """What is wrong with a container of this specification, whose network is decided."""
    found: Violations = []
    if network is Network.ALLOW_LIST:
        text = "cannot be ALLOW_LIST in a container, which our proxy is not in: use NONE, OPEN, or tier BUBBLEWRAP"
        found.append(("spec.network", text))
    if spec.layout.WhichOneof("kind") == "layers" and not spec.layout.layers.mounted_path:
        text = "is required in a container: its engine sees what the host sees, and cannot stack a workspace's layers"
        found.append(("spec.layout.layers.mounted_path", text))
    if spec.command.HasField("terminal"):
        found.append(("spec.command.terminal", "cannot be had in a container"))
    for field, names in (("spec.environment", spec.environment), ("spec.secrets", spec.secrets)):
        bad = sorted(name for name in names if name and not _VARIABLE.fullmatch(name))
        found += [(field, f"{name!r} is no name that a container's shell can set") for name in bad]
    return found


def container(spec: pb.ExecutionSpec, bounds: Bounds, settings: ExecutionSettings) -> Container:
    """Return what the container is made from. Raises FailedPrecondition (IMAGE_NOT_ALLOWED)."""
    return Container(
        image=_image(spec, settings),
        engine=settings.container_engine,
        may_pull=settings.container_pull == "missing",
        memory_bytes=bounds.memory_bytes,
        processes=bounds.processes,
    )


def _image(spec: pb.ExecutionSpec, settings: ExecutionSettings) -> str:
    image = spec.image or settings.container_image
    if not image:
        text = "spec.image is required: there is no default here (BOATYARD_EXECUTION_CONTAINER_IMAGE)"
        raise FailedPrecondition("IMAGE_NOT_ALLOWED", text, "spec.image")
    allowed = (settings.container_image, *settings.container_images)
    if not _IMAGE.fullmatch(image) or not any(fnmatch.fnmatchcase(image, pattern) for pattern in allowed):
        text = f"spec.image {image!r} is none of those that may be used here (BOATYARD_EXECUTION_CONTAINER_IMAGES)"
        raise FailedPrecondition("IMAGE_NOT_ALLOWED", text, "spec.image")
    return image
