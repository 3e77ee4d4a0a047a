"""The settings of the gateway."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator

from services.common.addresses import is_loopback
from services.common.rpc.tls import ClientTls, ServerTls
from services.common.settings import PublicAddress
from services.lifecycle.settings import DriverSettings


class GatewaySettings(DriverSettings, env_prefix="BOATYARD_GATEWAY_"):
    """Variables BOATYARD_GATEWAY_<NAME>, and BOATYARD_HOME, _DATABASE_URL, _TOKEN, AGENT_COMMAND, ANTHROPIC_MODEL."""

    listen: PublicAddress = "127.0.0.1:7460"
    """Its port, for everybody's tools; its own machine's command line calls its socket in the data directory.

    Any address but a loopback one needs TLS: `tls_certificate`, `tls_key`, and `ca`."""
    http_listen: PublicAddress = "127.0.0.1:7480"
    """The address of its HTTP server (/metrics), under the same rule and with the same certificate."""
    tls_certificate: Path | None = None
    """Its certificate with the chain, in PEM. The certificate and the key are read again when they change."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """The CA of the certificates that callers must show beside their tokens. Default: they show none."""
    ca: Path | None = None
    """The CA that verifies gateways for those who call them: other cells, `boatyard up`, and the command line."""
    client_certificate: Path | None = None
    """The certificate that these callers show when `tls_client_ca` requires one."""
    client_key: Path | None = None
    server_name: str = ""
    """The name in the gateways' certificates, when it is not the one that callers use."""
    advertised_address: str = ""
    """Where the gateways of other cells reach this one, host:port. Default: `listen`, with the host's name in place of
    an address that means every address of the machine; without TLS the socket, for the cells of this machine."""
    forget_cell_days: Annotated[float, Field(ge=0.1, le=3650)] = 7.0
    """How long a cell is remembered after it was last heard of."""
    max_jobs: Annotated[int, Field(ge=0, le=1000)] = 4
    """How many jobs this cell runs at once; 0 means that it takes none."""
    max_attempts: Annotated[int, Field(ge=1)] | None = None
    """The most attempts that a job may ask for; without it any number."""
    max_extra_rounds: Annotated[int, Field(ge=0)] | None = None
    """The most further rounds that a job may ask for; without it any number."""
    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 20.0
    """How long a job stays this cell's without a heartbeat. Then another cell takes it, and begins it anew."""
    ageing_seconds: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """How long a job waits until its priority counts one point more, so that nothing starves; 0 means never."""
    keep_jobs_days: Annotated[float, Field(ge=0, le=36500)] = 90.0
    """How long a job is kept after its end, with its executions and its timeline; 0 means for ever."""
    keep_usage_days: Annotated[float, Field(ge=0, le=36500)] = 400.0
    """How long it is kept what models were used for and what that cost, by job and day; 0 means for ever."""
    kinds_file: Path | None = None
    """A TOML file with kinds of jobs that add to the shipped ones or replace some: see services/gateway/jobs."""
    audit_days: Annotated[float, Field(gt=0, le=36500)] = 90.0
    """How long the records of who did what are kept."""
    database_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("BOATYARD_DATABASE_URL", "database_url")
    )
    """postgresql://…, for several cells. Default: a SQLite file on this machine."""
    database_listen_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("BOATYARD_DATABASE_LISTEN_URL", "database_listen_url")
    )
    """A direct URL of the same PostgreSQL, where `database_url` leads to a pooler of transactions (PgBouncer)."""
    keys_file: Path | None = None
    """Keys of the database, beside those in $BOATYARD_HOME/keys: for a further cell, a copy of that file of another."""
    token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("BOATYARD_TOKEN", "token"))
    """The administrator's token. Default: the one in $BOATYARD_HOME/token, which is made at the first start."""
    agent_command: str = Field(default="", validation_alias=AliasChoices("AGENT_COMMAND", "agent_command"))
    """A line for /bin/sh: the agent of jobs for which no other is set."""
    agent_model: str = Field(default="", validation_alias=AliasChoices("ANTHROPIC_MODEL", "agent_model"))
    """The model of jobs with engine anthropic for which no other is set."""

    @model_validator(mode="after")
    def _tokens_stay_secret(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("BOATYARD_GATEWAY_TLS_CERTIFICATE and BOATYARD_GATEWAY_TLS_KEY go together")
        if self.tls_certificate is not None and self.ca is None:
            raise ValueError("BOATYARD_GATEWAY_CA: is required with TLS, for this cell's own calls to gateways")
        for name, address in (("LISTEN", self.listen), ("HTTP_LISTEN", self.http_listen)):
            if self.tls_certificate is None and not is_loopback(address.rpartition(":")[0]):
                raise ValueError(
                    f"BOATYARD_GATEWAY_{name}: must be a loopback address unless BOATYARD_GATEWAY_TLS_CERTIFICATE,"
                    " _TLS_KEY and BOATYARD_GATEWAY_CA are given: tokens would travel in the clear"
                )
        return self

    @property
    def server_tls(self) -> ServerTls | None:
        """The TLS that the gateway serves with; None without TLS, on a loopback address."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return ServerTls(self.tls_certificate, self.tls_key, self.tls_client_ca)

    @property
    def client_tls(self) -> ClientTls | None:
        """The TLS that other gateways are called with."""
        return ClientTls.of(self.ca, self.client_certificate, self.client_key, self.server_name)
