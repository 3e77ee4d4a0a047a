"""The networks that this machine is part of: what is in them is near, also where its addresses are public ones."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from services.execution.egress import netlink

# linux/rtnetlink.h, linux/if_addr.h
_GET_ADDRESS, _ADDRESS, _LOCAL = 22, 1, 2
_HEADER = struct.Struct("=4BI")


def attached_networks() -> Iterator[IPv4Network | IPv6Network]:
    """Yield the networks of this machine's interfaces, and those of their peers. Raises OSError."""
    everything = _HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for interface in netlink.dump(netlink.ROUTE, _GET_ADDRESS, everything):
        prefix = interface[1]
        values = netlink.attributes(interface[_HEADER.size :])
        if prefix > 0:  # one of 0 would be everything
            yield from (
                ip_network((values[kind], prefix), strict=False) for kind in (_ADDRESS, _LOCAL) if kind in values
            )
