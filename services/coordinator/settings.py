"""The settings of a coordinator."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, model_validator

from services.common.addresses import is_host_and_port
from services.common.errors import StartError
from services.common.home import read_token, token_from
from services.common.ids import is_id
from services.common.rpc.sockets import is_socket, socket_path
from services.common.rpc.tls import ClientTls
from services.lifecycle.settings import DriverSettings


def _addresses(text: str) -> str:
    for address in comma_separated(text):
        if is_socket(address):
            socket_path(address)
        elif not is_host_and_port(address):
            raise ValueError(
                "must be host:port, such as 10.0.0.1:7460, or unix:PATH, or several of these, separated by commas"
            )
    if not comma_separated(text):
        raise ValueError("must name a gateway, host:port")
    return text


def _id(text: str) -> str:
    if text and not is_id(text):
        raise ValueError("must be 1 to 63 characters of [a-z0-9-], not starting with a dash")
    return text


def comma_separated(text: str) -> tuple[str, ...]:
    """Return the parts of a text that are separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


class CoordinatorSettings(DriverSettings, env_prefix="BOATYARD_COORDINATOR_"):
    """Variables BOATYARD_COORDINATOR_<NAME>, and BOATYARD_HOME and BOATYARD_TOKEN."""

    upstream: Annotated[str, AfterValidator(_addresses)]
    """The gateways, host:port or unix:PATH, separated by commas: the next is used when one does not answer."""
    upstream_ca: Path | None = None
    """The CA of the gateways, by which those at a port prove themselves."""
    upstream_insecure: bool = False
    """Show the token to whoever listens at these ports, without a CA: for a tunnel that proves the other side."""
    upstream_certificate: Path | None = None
    """The certificate for gateways that ask for one, in addition to the token."""
    upstream_key: Path | None = None
    upstream_server_name: str = ""
    """The name in the gateways' certificates, when it differs from the one in their addresses."""
    token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("BOATYARD_TOKEN", "token"))
    """A token with the role coordinator or admin, unless `token_file` has it."""
    token_file: Path | None = None
    capacity: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many jobs it runs at once at most."""
    id: Annotated[str, AfterValidator(_id)] = ""
    """The coordinator's id, for which its token is valid; empty: one is made, and kept."""
    projects: str = ""
    """Run only jobs of these projects, separated by commas; empty means all projects of the token."""
    kinds: str = ""
    """Run only jobs of these kinds, separated by commas; empty means all."""
    engines: str = ""
    """Run only jobs of these engines, separated by commas; empty means all."""

    @model_validator(mode="after")
    def _tokens_stay_secret(self) -> Self:
        ports = [one for one in comma_separated(self.upstream) if not is_socket(one)]
        if ports and self.upstream_ca is None and not self.upstream_insecure:
            raise ValueError(
                f"BOATYARD_COORDINATOR_UPSTREAM_CA: is required, because whoever listens at {ports[0]} would get the"
                " token, and cannot prove to be the gateway; name the CA of its certificate (--upstream-ca), or pin the"
                " certificate with `boatyard login`, or take the risk with `boatyard --insecure coordinator …`"
            )
        return self

    @property
    def upstream_tls(self) -> ClientTls | None:
        """Return the TLS of calls to the gateways; None for unencrypted calls, on this machine."""
        return ClientTls.of(self.upstream_ca, self.upstream_certificate, self.upstream_key, self.upstream_server_name)

    def shown_token(self) -> str:
        """Return the token for the gateways. Raises StartError when there is none."""
        if self.token_file is not None:
            return read_token(self.token_file.expanduser())
        if self.token is None:
            raise StartError(
                "a token for the gateway is required, in BOATYARD_TOKEN or in a file (--token-file);"
                " create one at the gateway with `boatyard token create --role coordinator`"
            )
        return token_from(self.token.get_secret_value(), "BOATYARD_TOKEN")
