"""The engine of a StartExecutionRequest: which one is requested, and how each one reads its part."""

from collections.abc import Mapping
from typing import Final, Protocol

from boatyard.execution.v1 import execution_pb2 as pb

from services.execution.engines.anthropic import wire as anthropic
from services.execution.engines.command import wire as command
from services.execution.engines.spec import EngineSpec
from services.execution.validation import Violations


class EngineReader(Protocol):
    """Reads the part of a specification that belongs to one engine."""

    def violations(self, spec: pb.ExecutionSpec, /) -> Violations:
        """Return what is wrong with that part."""
        ...

    def container_violations(self, spec: pb.ExecutionSpec, /) -> Violations:
        """Return what in that part is not available in a container."""
        ...

    def engine_from_proto(self, spec: pb.ExecutionSpec, /) -> EngineSpec:
        """Read a specification that has no violations."""
        ...


_READERS: Final[Mapping[str, EngineReader]] = {"command": command, "anthropic": anthropic}
"""By the name of the engine, which is also the name of its field in the contract."""


def violations(spec: pb.ExecutionSpec) -> Violations:
    """Return what is wrong with the engine's part."""
    name = spec.WhichOneof("engine")
    if name is None or name not in _READERS:
        first, *others = (f"spec.{known}" for known in _READERS)
        return [(first, f"is required, or {' or '.join(others)}: no other engine is known here")]
    return _READERS[name].violations(spec)


def container_violations(spec: pb.ExecutionSpec) -> Violations:
    """Return what the engine needs that is not available in a container."""
    name = spec.WhichOneof("engine")
    return [] if name is None or name not in _READERS else _READERS[name].container_violations(spec)


def engine_from_proto(spec: pb.ExecutionSpec) -> tuple[str, EngineSpec]:
    """Return the engine's name and what it derives from a specification that has no violations."""
    name = spec.WhichOneof("engine")
    if name is None:
        raise ValueError("the specification has no engine")
    return name, _READERS[name].engine_from_proto(spec)
