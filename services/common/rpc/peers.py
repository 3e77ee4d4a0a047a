"""Names of the two ends of a connection, in gRPC's form: ipv4:127.0.0.1:40312, ipv6:[2001:db8::1]:40312, unix:PATH."""

from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_network
from urllib.parse import unquote

_MAPPED = "::ffff:"


def peer_name(host: str, port: int) -> str:
    """Return the name of an end of a TCP connection; an IPv4 address that a socket for IPv6 shows is one of IPv4."""
    if host.startswith(_MAPPED) and "." in host:
        host = host.removeprefix(_MAPPED)
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


@lru_cache(maxsize=4096)  # each call of a connection asks
def address_of(peer: str) -> str:
    """Return the address whose failures are counted together: an IPv4 address, or the /64 network of an IPv6 one.

    For ipv4:127.0.0.1:40312 it is 127.0.0.1, for ipv6:%5B2001:db8::1%5D:40312 2001:db8::/64; unix sockets are one.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv4Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
