"""Which addresses are anybody's on the Internet, and which are this machine's or its network's own."""

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

_NAT64: Final = ip_network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address, and the one that is wrapped in it, if there is one, is anybody's on the Internet."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
