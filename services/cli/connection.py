"""Which gateway the command line calls, how that proves itself before it is shown the token, and with which token.

The gateway of this machine's own cell is called by its socket, in a directory that only its owner can enter. At a port
anybody may listen: the gateway there proves itself by a certificate, or the caller takes the risk with --insecure.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import click

from services.cli.exit_codes import NotAllowedError
from services.common.errors import StartError
from services.common.home import Home, read_token
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
    if tls is None and not _is_insecure():
        raise NotAllowedError(
            f"whoever listens at {address} would get the token, and cannot prove to be the gateway: set"
            " BOATYARD_GATEWAY_CA to the CA of its certificate; or take the risk with `boatyard --insecure …`. A cell"
            f" of your own on this machine is called by its socket, with BOATYARD_HOME and without {ADDRESS_VARIABLE}"
        )
    return Connection(address, _token(home), tls)


def gateway_address(home: Home) -> str:
    """Return BOATYARD_GATEWAY_ADDRESS, or else the socket of this data directory's cell, running or not.

    Raises StartError when the variable is not an address.
    """
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        return home.socket(GATEWAY)
    if is_socket(address):
        try:
            socket_path(address)
        except ValueError as error:
            raise StartError(f"{ADDRESS_VARIABLE}: {error}") from None
    elif not address.rpartition(":")[2].isdecimal():
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


def _is_insecure() -> bool:
    """True with `boatyard --insecure`, or BOATYARD_INSECURE."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("insecure"))


def _token(home: Home) -> str:
    token = os.environ.get("BOATYARD_TOKEN")
    if token:
        return token
    path = home.admin_token_file
    if not path.exists():
        raise NotAllowedError(
            f"there is no token in {path}: start a cell with `boatyard up`, set BOATYARD_HOME to the data directory of"
            f" one, or set {ADDRESS_VARIABLE} and BOATYARD_TOKEN to a gateway and its token"
        )
    try:
        return read_token(path)
    except StartError as error:
        raise NotAllowedError(str(error)) from None
