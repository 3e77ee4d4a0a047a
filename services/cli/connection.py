"""Which gateway the command line calls, how that proves itself before it is shown the token, and with which token.

The gateway of this machine's own cell is called by its socket, in a directory that only its owner can enter. At a port
anybody may listen: the gateway there proves itself by a certificate, or the caller takes the risk with --insecure.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from services.cli.exit_codes import NotAllowedError
from services.cli.logins import Logins
from services.common.addresses import is_host_and_port
from services.common.errors import StartError
from services.common.home import Home, read_token, token_from
from services.common.rpc.sockets import is_socket, socket_path
from services.common.rpc.tls import ClientTls
from services.supervisor.plan import GATEWAY

ADDRESS_VARIABLE = "BOATYARD_GATEWAY_ADDRESS"


@dataclass(frozen=True, slots=True)
class Connection:
    """A gateway's address (unix:PATH, or host:port), the TLS of calls to a port, and the token to show there."""

    address: str
    token: str = field(repr=False)
    tls: ClientTls | None = None


def connection(home: Home) -> Connection:
    """Return the connection of this environment. Reads files only.

    Raises NotAllowedError when there is no token, or the gateway could not prove itself; StartError for wrong settings.
    """
    address = gateway_address(home)
    if is_socket(address):
        return Connection(address, _token(home))
    tls = gateway_tls(os.environ)
    login = Logins.of_user().find(address) if tls is None else None
    if login is not None:
        return Connection(address, _token_of_environment() or _token_in(login.token_file), login.tls)
    if tls is None and not is_insecure():
        raise NotAllowedError(
            f"whoever listens at {address} would get the token, and cannot prove to be the gateway: set"
            " BOATYARD_GATEWAY_CA to the CA of its certificate, or pin it with `boatyard login`; or take the risk with"
            " `boatyard --insecure …`. A cell of your own on this machine is called by its socket, with BOATYARD_HOME"
            f" and without {ADDRESS_VARIABLE}"
        )
    return Connection(address, _token(home), tls)


def gateway_address(home: Home) -> str:
    """Return BOATYARD_GATEWAY_ADDRESS, or else the socket of this data directory's cell, running or not.

    Where there never was a cell it is the gateway of the last login. Raises StartError when the variable is not an
    address.
    """
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        login = None if home.admin_token_file.exists() else Logins.of_user().last()
        return home.socket(GATEWAY) if login is None else login.address
    if is_socket(address):
        try:
            socket_path(address)
        except ValueError as error:
            raise StartError(f"{ADDRESS_VARIABLE}: {error}") from None
    elif not is_host_and_port(address):
        raise StartError(f"{ADDRESS_VARIABLE}: must be host:port, or unix:PATH, not {address!r}")
    return address


def gateway_tls(environment: Mapping[str, str]) -> ClientTls | None:
    """Read BOATYARD_GATEWAY_CA and the related variables; None without a CA, which means unencrypted calls."""
    return ClientTls.of(
        environment.get("BOATYARD_GATEWAY_CA", ""),
        environment.get("BOATYARD_GATEWAY_CLIENT_CERTIFICATE", ""),
        environment.get("BOATYARD_GATEWAY_CLIENT_KEY", ""),
        environment.get("BOATYARD_GATEWAY_SERVER_NAME", ""),
    )


def is_pinned(address: str) -> bool:
    """True when the gateway at an address is known by a certificate that `boatyard login` has pinned."""
    return gateway_tls(os.environ) is None and Logins.of_user().find(address) is not None


def is_insecure() -> bool:
    """True with `boatyard --insecure`, or BOATYARD_INSECURE."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("insecure"))


def _token(home: Home) -> str:
    if token := _token_of_environment():
        return token
    path = home.admin_token_file
    if not path.exists():
        raise NotAllowedError(
            f"there is no token in {path}: start a cell with `boatyard up`, set BOATYARD_HOME to the data directory of"
            f" one, log in at somebody else's with `boatyard login`, or set {ADDRESS_VARIABLE} and BOATYARD_TOKEN to a"
            " gateway and its token"
        )
    return _token_in(path)


def _token_of_environment() -> str:
    try:
        return token_from(os.environ.get("BOATYARD_TOKEN", ""), "BOATYARD_TOKEN")
    except StartError as error:
        raise NotAllowedError(str(error)) from None


def _token_in(path: Path) -> str:
    try:
        return read_token(path)
    except StartError as error:
        raise NotAllowedError(str(error)) from None
