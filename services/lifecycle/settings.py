"""The settings of every program that drives jobs: a gateway, and a coordinator."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, AliasChoices, Field, SecretStr

from services.agent.providers import EVERYWHERE, ModelProvider, ModelWire
from services.common.settings import NodeAddress, ServiceSettings
from services.lifecycle.model.outcome import RetentionPeriods
from services.lifecycle.webhooks import AllowList

_PROVIDER_ALLOW: Final = "BOATYARD_PROVIDER_ALLOW"


def _checked(text: str) -> str:
    AllowList.parse(text)
    return text


Hours = Annotated[float, Field(ge=0, le=87600)]


def _key(variable: str) -> Any:  # noqa: ANN401 - a default, as pydantic has them
    return Field(default=None, validation_alias=AliasChoices(variable, variable.lower()))


def _base_url(variable: str, url: str) -> Any:  # noqa: ANN401 - see above
    return Field(default=url, validation_alias=AliasChoices(variable, variable.lower()))


class DriverSettings(ServiceSettings):
    """Where this machine's node services are, how long workspaces are kept, and which addresses webhooks may call."""

    workspace_address: NodeAddress | None = None
    """Where this machine's workspace service listens; by default at its socket in the data directory."""
    git_address: NodeAddress | None = None
    execution_address: NodeAddress | None = None
    node_patience_seconds: Annotated[float, Field(ge=0, le=86400)] = 300.0
    """How long to wait for a node service that is away; then the job that needs it ends with NODE_LOST."""
    model_pause_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """How long a job waits for a provider of models that does not answer before it asks again; twice as long after each
    time in vain, up to twenty times."""
    keep_succeeded_hours: Hours = 24.0
    """How long to keep the workspace of a job that has succeeded, if its policy keeps it; 0 removes it at once."""
    keep_failed_hours: Hours = 72.0
    """The same for a job that has failed, or was taken over by another machine. Its content is kept as a snapshot."""
    keep_cancelled_hours: Hours = 24.0
    """The same for a job that was cancelled."""
    webhook_allow: Annotated[str, AfterValidator(_checked)] = ""
    """Addresses, networks and host names, separated by commas, that webhooks may call although they are not public."""
    provider_allow: Annotated[str, AfterValidator(_checked)] = Field(
        default="", validation_alias=AliasChoices(_PROVIDER_ALLOW, "provider_allow")
    )
    """Addresses, networks and host names, separated by commas, at which providers of models may be although they are
    not public, or speak http."""

    anthropic_api_key: SecretStr | None = _key("ANTHROPIC_API_KEY")
    """A key of a company makes it a provider for the agents of this machine, by the company's name."""
    anthropic_base_url: str = _base_url("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
    openai_api_key: SecretStr | None = _key("OPENAI_API_KEY")
    openai_base_url: str = _base_url("OPENAI_BASE_URL", "https://api.openai.com/v1")
    gemini_api_key: SecretStr | None = _key("GEMINI_API_KEY")
    gemini_base_url: str = _base_url("GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com")

    @property
    def own_providers(self) -> tuple[ModelProvider, ...]:
        """Who answers what agents on this machine ask of a model, by its environment: after those of the catalogue."""
        known = (
            ("anthropic", ModelWire.MESSAGES, self.anthropic_base_url, self.anthropic_api_key),
            ("openai", ModelWire.RESPONSES, self.openai_base_url, self.openai_api_key),
            ("openai-chat", ModelWire.CHAT, self.openai_base_url, self.openai_api_key),
            ("gemini", ModelWire.GEMINI, self.gemini_base_url, self.gemini_api_key),
        )
        return tuple(
            ModelProvider(
                name=name, wire=wire, base_url=url, keys=(key.get_secret_value(),), allowed_addresses=EVERYWHERE
            )
            for name, wire, url, key in known
            if key is not None and key.get_secret_value()
        )

    @property
    def retention_periods(self) -> RetentionPeriods:
        """Return how long workspaces are kept."""
        hours = (self.keep_succeeded_hours, self.keep_failed_hours, self.keep_cancelled_hours)
        return RetentionPeriods(*(each * 3600 for each in hours))

    @property
    def providers_allowed(self) -> AllowList:
        """Where providers of models may be, beside at public addresses with https."""
        return AllowList.parse(self.provider_allow, _PROVIDER_ALLOW)

    @property
    def webhooks_allowed(self) -> AllowList:
        """Return what webhooks may call although it is not public."""
        return AllowList.parse(self.webhook_allow)
