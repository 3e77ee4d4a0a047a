"""What engines need to reach their models, as the service's settings have it. Runners are told it by pipe alone."""

from collections.abc import Callable, Mapping
from typing import Final

from services.common.engines import traits
from services.common.errors import FailedPrecondition
from services.execution.engines.anthropic import setup as anthropic
from services.execution.settings import ExecutionSettings

_SOURCES: Final[Mapping[str, tuple[Callable[[ExecutionSettings], bytes], str]]] = {
    "anthropic": (anthropic.credentials, anthropic.MISSING),
}
"""Where those of an engine that needs a model come from, and what to do where they are missing."""


class EngineCredentials:
    """Those that this service has."""

    def __init__(self, known: Mapping[str, bytes]) -> None:
        """`known` has them by the engine's name."""
        self._known = known

    @classmethod
    def from_settings(cls, settings: ExecutionSettings) -> "EngineCredentials":
        """Find them. Raises StartError."""
        found = {name: credentials(settings) for name, (credentials, _) in _SOURCES.items()}
        return cls({name: known for name, known in found.items() if known})

    def check(self, engine: str, execution_id: str) -> None:
        """Raise FailedPrecondition (MODEL_KEY_MISSING) unless there is what an engine needs."""
        if traits(engine).needs_model and engine not in self._known:
            raise FailedPrecondition("MODEL_KEY_MISSING", _SOURCES[engine][1], execution_id)

    def of(self, engine: str) -> bytes:
        """Return those of an engine, for its runner; nothing where it needs none, or there are none."""
        return self._known.get(engine, b"")
