"""What the gateway can be told."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator

from services.common.rpc.tls import ClientTls, ServerTls
from services.common.settings import PublicAddress, is_loopback
from services.lifecycle.settings import DriverSettings


class GatewaySettings(DriverSettings, env_prefix="BOATYARD_GATEWAY_"):
    """Variables BOATYARD_GATEWAY_<NAME>, and BOATYARD_HOME, _DATABASE_URL, _TOKEN, AGENT_COMMAND, ANTHROPIC_MODEL."""

    listen: PublicAddress = "127.0.0.1:7460"
    """Anywhere but on a loopback address it needs TLS: `tls_certificate`, `tls_key`, and `ca`."""
    http_listen: PublicAddress = "127.0.0.1:7480"
    """Where it serves HTTP (/metrics), by the same rule and with the same certificate."""
    tls_certificate: Path | None = None
    """Its certificate with the chain, in PEM; it and its key are read again when they change."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Whose certificates callers must show, beside their tokens; unless given they show none."""
    ca: Path | None = None
    """By which gateways are known to those who call them: other cells, `boatyard up`, and the command line."""
    client_certificate: Path | None = None
    """What these callers show, where `tls_client_ca` asks for it."""
    client_key: Path | None = None
    server_name: str = ""
    """The name that the gateways' certificates have, where it is not the one that they are called by."""
    advertised_address: str = ""
    """Where the gateways of other cells reach this one, host:port; `listen` unless given, by the host's name where that
    is every address of the machine."""
    forget_cell_days: Annotated[float, Field(ge=0.1, le=3650)] = 7.0
    """How long a cell is remembered that is not heard of any more."""
    max_jobs: Annotated[int, Field(ge=0, le=1000)] = 4
    """How many jobs this cell carries at once; 0 takes none."""
    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 20.0
    """How long a job stays this cell's without a heartbeat; then another cell takes it, and begins it anew."""
    ageing_seconds: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """How long a job waits for each point that its priority then counts more, so that nothing starves; 0 is never."""
    keep_jobs_days: Annotated[float, Field(ge=0, le=36500)] = 90.0
    """How long a job that has ended is known, with its executions and its timeline; 0 is for ever."""
    kinds_file: Path | None = None
    """A TOML file with kinds of jobs, beside the shipped ones or in the place of some: see services/gateway/jobs."""
    audit_days: Annotated[float, Field(gt=0, le=36500)] = 90.0
    """How long it is kept who did what."""
    database_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("BOATYARD_DATABASE_URL", "database_url")
    )
    """postgresql://…, for several cells; a SQLite file of this machine unless given."""
    token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("BOATYARD_TOKEN", "token"))
    """The administrator's token; the one in $BOATYARD_HOME/token, made at the first start, unless given."""
    agent_command: str = Field(default="", validation_alias=AliasChoices("AGENT_COMMAND", "agent_command"))
    """A line for /bin/sh: the agent of jobs for which nobody has said another."""
    agent_model: str = Field(default="", validation_alias=AliasChoices("ANTHROPIC_MODEL", "agent_model"))
    """The model of jobs with engine anthropic for which nobody has said another."""

    @model_validator(mode="after")
    def _tokens_stay_secret(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("BOATYARD_GATEWAY_TLS_CERTIFICATE and BOATYARD_GATEWAY_TLS_KEY go together")
        if self.tls_certificate is not None and self.ca is None:
            raise ValueError("BOATYARD_GATEWAY_CA: is required with TLS, for this cell's own calls to gateways")
        for name, address in (("LISTEN", self.listen), ("HTTP_LISTEN", self.http_listen)):
            if self.tls_certificate is None and not is_loopback(address.rpartition(":")[0]):
                raise ValueError(
                    f"BOATYARD_GATEWAY_{name}: must be a loopback address, or BOATYARD_GATEWAY_TLS_CERTIFICATE,"
                    " _TLS_KEY and BOATYARD_GATEWAY_CA be given: tokens would travel in the clear"
                )
        return self

    @property
    def server_tls(self) -> ServerTls | None:
        """Return what the gateway serves with; None in the clear, on a loopback address."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return ServerTls(self.tls_certificate, self.tls_key, self.tls_client_ca)

    @property
    def client_tls(self) -> ClientTls | None:
        """Return what other gateways are called with."""
        return ClientTls.of(self.ca, self.client_certificate, self.client_key, self.server_name)
