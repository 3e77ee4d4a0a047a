"""Which addresses may be called. A name is resolved once, and the address that was checked is the one connected to.

Public addresses may be called by https. All others (loopback, private, link-local and the like, in whatever notation or
tunnel) belong to this machine and its neighbours, which trust whoever reaches them: the operator has to allow them.
"""

import asyncio
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import httpx2

from services.common.addresses import is_public

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class NotAllowed(Exception):
    """The URL leads to an address that is not allowed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """What the operator allows beside public addresses, by a setting: networks, and hosts with any address."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    setting: str = "BOATYARD_GATEWAY_WEBHOOK_ALLOW"

    @classmethod
    def parse(cls, text: str, setting: str = "BOATYARD_GATEWAY_WEBHOOK_ALLOW") -> "AllowList":
        """Read addresses, networks (10.0.0.0/8) and host names, separated by commas. Raises ValueError."""
        networks: list[Network] = []
        hosts: list[str] = []
        for entry in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                if "/" in entry or not _HOST.fullmatch(entry):
                    raise ValueError(f"{entry!r} is neither an address, a network nor a host name") from None
                hosts.append(_normal(entry))
        return cls(tuple(networks), frozenset(hosts), setting)

    def names(self, host: str) -> bool:
        """True when a URL's host itself is on the list."""
        literal = _literal(host)
        return _normal(host) in self.hosts or (literal is not None and self._has(literal))

    def admits(self, host: str, address: Address) -> bool:
        """True when `address` may be called for `host`."""
        return _normal(host) in self.hosts or self._has(address) or is_public(address)

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)


PUBLIC: Final = AllowList()
"""Nothing but public addresses."""


def url_complaint(url: str, allowed: AllowList) -> str | None:
    """Return why this URL cannot be called, as far as that shows without resolving its host; else None.

    The URL has the form that the contract has for it.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "is not a URL"
    literal = _literal(parsed.host)
    rules = (
        (not parsed.host, "names no host"),
        (
            parsed.scheme == "http" and not allowed.names(parsed.host),
            f"must be https: http is for hosts in {allowed.setting} alone",
        ),
        (
            literal is not None and not allowed.admits(parsed.host, literal),
            f"names {literal}, which is not public, and not in {allowed.setting}",
        ),
    )
    return next((text for broken, text in rules if broken), None)


async def resolve(url: httpx2.URL, allowed: AllowList) -> list[Address]:
    """Return the addresses of a URL's host that may be called. Raises OSError, NotAllowed."""
    port = url.port or (443 if url.scheme == "https" else 80)
    host = url.raw_host.decode()
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(ip_address(str(place[0]).partition("%")[0]) for *_, place in found))
    admitted = [address for address in addresses if allowed.admits(url.host, address)]
    if not admitted:
        listed = ", ".join(map(str, addresses[:3]))
        raise NotAllowed(f"{url.host} is {listed}: not public, and not in {allowed.setting}")
    return admitted


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _normal(host: str) -> str:
    return host.rstrip(".").lower()
