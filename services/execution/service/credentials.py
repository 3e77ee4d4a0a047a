"""What engines need to reach their models, from the service's settings. Runners get it through a pipe only."""

from collections.abc import Iterable, Mapping

from services.agent.engines import ENGINES
from services.agent.providers import ModelProvider
from services.common.errors import FailedPrecondition
from services.execution.engine import load
from services.execution.settings import ExecutionSettings


class EngineCredentials:
    """The credentials that this service has."""

    def __init__(self, by_engine: Mapping[str, bytes]) -> None:
        """`by_engine` maps the names of engines to their credentials."""
        self._by_engine = by_engine

    @classmethod
    def from_settings(cls, settings: ExecutionSettings) -> "EngineCredentials":
        """Read the credentials of all engines. Raises StartError."""
        by_engine = {name: load(name).credentials(settings) for name in ENGINES}
        return cls({name: credentials for name, credentials in by_engine.items() if credentials})

    def check(self, engine: str, execution_id: str, providers: Iterable[ModelProvider] = ()) -> None:
        """Raise FailedPrecondition (MODEL_KEY_MISSING) when an engine has neither credentials nor a provider."""
        has_provider = any(provider.wire is load(engine).speaks for provider in providers)
        if ENGINES[engine].needs_model and engine not in self._by_engine and not has_provider:
            raise FailedPrecondition("MODEL_KEY_MISSING", load(engine).missing, execution_id)

    def engines(self) -> list[str]:
        """Return the names of the engines whose credentials this service has."""
        return sorted(self._by_engine)

    def of(self, engine: str) -> bytes:
        """Return an engine's credentials, for its runner; empty when it needs none, or there are none."""
        return self._by_engine.get(engine, b"")
