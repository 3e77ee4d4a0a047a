"""Addresses: which are public, and which only this machine reaches."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_NAT64: Final = ip_network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
"""All of IPv6 that is given to networks: loopback, private, link-local and multicast addresses are outside."""

# The blocks of the IANA IPv4 and IPv6 Special-Purpose Address Registries, as of 2026-11-29 (RFC 6890, 8190, 9602, 9637,
# 9780), of IPv6 those within 2000::/3. Also those that the registries call globally reachable: no server for people is
# there. The list is ours, because that of `ipaddress` depends on the version of Python, and lets some of these pass.
_SPECIAL: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers; a cloud's metadata at 100.100.100.200
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local; most clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; a cloud's metadata at 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # multicast relays
            "192.88.99.0/24",  # relays of 6to4, deprecated
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, deprecated: leads to the IPv4 address in it
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
            # In no registry: a cloud's own server at a public address, which only its machines reach (Azure).
            "168.63.129.16/32",
        ),
    )
)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """True when an address, and the IPv4 address that is wrapped in it if there is one, may be a public server's."""
    inner = unwrapped(address)
    if isinstance(inner, IPv6Address) and inner not in _GLOBAL_UNICAST:
        return False
    return not any(one in block for block in _SPECIAL for one in (address, inner))


def unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 one wraps, because that one is reached in the end; others as they are."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        return inner or address
    return address


def is_loopback(host: str) -> bool:
    """True when only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_host_and_port(address: str) -> bool:
    """True for host:port, the address of a server."""
    host, _, port = address.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and int(port) < 65536
