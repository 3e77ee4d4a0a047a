"""How the services of one cell serve and call one another: at sockets, or at ports with the cell's own certificate."""

from collections.abc import Sequence

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from services.common.home import Home
from services.common.rpc.channel import open_channel
from services.common.rpc.sockets import is_socket
from services.common.rpc.tls import ServerTls


def node_tls(home: Home, address: str) -> ServerTls | None:
    """Return the TLS with which a service of a cell serves at an address; None at a socket."""
    if is_socket(address):
        return None
    from services.common.rpc.own_certificate import own_certificate  # noqa: PLC0415 - few need it, and it is slow

    return own_certificate(home).server_tls


def open_node_channel(
    home: Home, address: str, token: str | None = None, *, services: Sequence[ServiceDescriptor] = ()
) -> grpc.aio.Channel:
    """Open a channel to a service of a cell, as `open_channel` does; whoever answers at a port has the cell's key."""
    if is_socket(address):
        return open_channel(address, token, services=services)
    from services.common.rpc.own_certificate import own_certificate  # noqa: PLC0415 - as above

    return open_channel(address, token, services=services, tls=own_certificate(home).client_tls)
