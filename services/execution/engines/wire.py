"""The engine of a StartExecutionRequest: which one is asked for, and what each reads of it."""

from collections.abc import Mapping
from typing import Final, Protocol

from boatyard.execution.v1 import execution_pb2 as pb

from services.execution.engines.anthropic import wire as anthropic
from services.execution.engines.command import wire as command
from services.execution.engines.spec import EngineSpec
from services.execution.validation import Violations


class EngineReader(Protocol):
    """Reads what one engine has of a specification that is its own."""

    def violations(self, spec: pb.ExecutionSpec, /) -> Violations:
        """What is wrong with it."""
        ...

    def container_violations(self, spec: pb.ExecutionSpec, /) -> Violations:
        """What of it cannot be had in a container."""
        ...

    def engine_from_proto(self, spec: pb.ExecutionSpec, /) -> EngineSpec:
        """Read one in which nothing is wrong."""
        ...


_READERS: Final[Mapping[str, EngineReader]] = {"command": command, "anthropic": anthropic}
"""By the name of the engine, which is that of its field in the contract."""


def violations(spec: pb.ExecutionSpec) -> Violations:
    """What is wrong with the engine."""
    name = spec.WhichOneof("engine")
    if name is None or name not in _READERS:
        first, *others = (f"spec.{known}" for known in _READERS)
        return [(first, f"is required, or {' or '.join(others)}: no other engine is known here")]
    return _READERS[name].violations(spec)


def container_violations(spec: pb.ExecutionSpec) -> Violations:
    """What of the engine cannot be had in a container."""
    name = spec.WhichOneof("engine")
    return [] if name is None or name not in _READERS else _READERS[name].container_violations(spec)


def engine_from_proto(spec: pb.ExecutionSpec) -> tuple[str, EngineSpec]:
    """Return the engine's name and what it makes of a specification that has no violations."""
    name = spec.WhichOneof("engine")
    if name is None:
        raise ValueError("the specification has no engine")
    return name, _READERS[name].engine_from_proto(spec)
